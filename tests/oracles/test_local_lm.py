"""The verdict is that of a full forward pass per request; what is shared is computed once."""

import pytest
import torch
from injections import INJECTIONS
from tiny_decoders import DECODERS, OTHERS, tiny_model
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from transformers import PreTrainedTokenizerFast

from realignment.oracles import OracleError, judge_in_order, local_lm
from realignment.oracles.local_lm import LocalLMOracle
from realignment.oracles.prompts import GUARD_FORMATS
from realignment.oracles.questions import Question, build_chat_question, build_guard_question
from realignment.policy import Policy
from realignment.records import Exchange

POLICY = Policy(name="p", version="1", text="abcdefghij")
EXCHANGES = [Exchange("ab", text) for text in ("c", "defg", "hij klm", "a" * 11, "c", "ba")]
LETTERS = "abcdefghijklmnopqrstuvwxyz .?|YN"


class Letters:
    """A tokenizer of one letter a token: enough to ask a model of 37 tokens."""

    def __call__(self, texts, add_special_tokens):
        assert not add_special_tokens
        return {"input_ids": [[3 + LETTERS.index(letter) for letter in text] for text in texts]}


QUESTION = Question(lambda policy, e: f"{policy.text}|{e.prompt}?{e.response}.", "Y", "N", "digest")


def oracle_of(model, **changes):
    settings = {"question": QUESTION, "name": "tiny", "identity": "tiny", "token_budget": 90}
    return LocalLMOracle(model, Letters(), **(settings | changes))


def naive_probability(model, exchange):
    """One full forward pass, all positions, the whole vocabulary: slow, and obviously right."""
    text = QUESTION.render(POLICY, exchange)
    ids = torch.tensor(Letters()([text], add_special_tokens=False)["input_ids"])
    with torch.no_grad():
        logits = model(input_ids=ids, use_cache=False).logits[0, -1]
    return float(logits[[3 + LETTERS.index(answer) for answer in "YN"]].softmax(0)[0])


RECURRENT = ["mamba", "lfm2"]
"""The others of `OTHERS` keep keys and values, and are read in padded rows."""


@pytest.mark.parametrize("family", [*DECODERS, *(name for name in OTHERS if name not in RECURRENT)])
def test_the_verdicts_are_those_of_one_full_forward_pass_per_request(family):
    model = tiny_model(family)
    actual = oracle_of(model)(EXCHANGES, POLICY)
    expected = [naive_probability(model, exchange) for exchange in EXCHANGES]
    assert [j.complies for j in actual] == [p >= 0.5 for p in expected]
    assert [j.confidence for j in actual] == pytest.approx([max(p, 1 - p) for p in expected], abs=1e-6)
    if family not in ("gemma2",):  # its norms compute in float32 in any dtype
        assert [j.confidence for j in actual] == pytest.approx([max(p, 1 - p) for p in expected], abs=1e-12)
    assert len({round(p, 6) for p in expected}) == 5, "the requests must differ for the test to mean anything"


def test_confidence_has_more_digits_than_half_precision():
    """A bfloat16 number from a half to one is a multiple of 1/256: sure and surer would be equal."""
    actual = oracle_of(tiny_model(dtype=torch.bfloat16))(EXCHANGES, POLICY)
    complying_confidences = [j.confidence for j in actual if j.complies]
    assert complying_confidences
    assert all(confidence * 256 % 1 for confidence in complying_confidences)


@pytest.mark.parametrize("family", RECURRENT)
def test_a_recurrent_model_is_refused_with_what_to_do_instead(family):
    with pytest.raises(OracleError, match=r"is recurrent.*`judging.oracle: chat`"):
        oracle_of(tiny_model(family))(EXCHANGES, POLICY)


@pytest.mark.parametrize("budget", [1, 40, 100_000])
def test_the_batch_size_does_not_matter(budget):
    model = tiny_model("llama")
    actual = oracle_of(model, token_budget=budget)(EXCHANGES, POLICY)
    assert actual == oracle_of(model)(EXCHANGES, POLICY) or [j.confidence for j in actual] == pytest.approx(
        [j.confidence for j in oracle_of(model)(EXCHANGES, POLICY)], abs=1e-12
    )


def test_a_lone_request_and_no_request_are_judged_too():
    model = tiny_model("llama")
    oracle = oracle_of(model)
    assert oracle([], POLICY) == []
    (lone,) = oracle(EXCHANGES[:1], POLICY)
    p = naive_probability(model, EXCHANGES[0])
    assert lone.confidence == pytest.approx(max(p, 1 - p), abs=1e-12)
    assert lone.reason == f"P(complies) = {p:.2f}"


def test_the_shared_tokens_are_computed_once():
    model = tiny_model("llama")
    passed = []
    model.model.register_forward_hook(
        lambda module, args, kwargs, output: passed.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    oracle = oracle_of(model, token_budget=100_000)
    exchanges = [Exchange("a", letter * 3) for letter in "abcdef"]
    oracle(exchanges, POLICY)
    shared, own = len("abcdefghij|a?"), len("aaa.")
    assert passed[-2:] == [shared, own * len(exchanges)]
    assert oracle.usage.prompt_tokens == shared + own * len(exchanges)
    assert oracle.usage.asked == len(exchanges)


def test_exchanges_in_any_order_and_number_have_the_same_confidence(monkeypatch):
    exchanges = [Exchange(prompt, response) for response in ("c", "def g", "") for prompt in ("ab", "k", "")]
    oracle = oracle_of(tiny_model("llama"))
    expected = [j.confidence for j in oracle(exchanges, POLICY)]
    alone = [oracle([exchange], POLICY)[0].confidence for exchange in exchanges]
    backwards = [j.confidence for j in oracle(exchanges[::-1], POLICY)][::-1]
    monkeypatch.setattr(local_lm, "_EXCHANGES_IN_MEMORY", 2)
    in_parts = [j.confidence for j in oracle(exchanges, POLICY)]
    for actual in (alone, backwards, in_parts):
        assert actual == pytest.approx(expected, abs=1e-12)


def test_a_request_longer_than_the_model_reads_is_unscored():
    model = tiny_model("llama")
    judgments = oracle_of(model)([EXCHANGES[0], Exchange("a", "b" * 200)], POLICY)
    assert judgments[0].complies is not None
    assert judgments[1].complies is None
    assert judgments[1].reason == "the request has 214 tokens, the model reads 128"


def test_logits_that_are_not_finite_are_unscored():
    model = tiny_model("llama")
    with torch.no_grad():
        model.model.layers[0].mlp.down_proj.weight.fill_(float("inf"))
    assert {j.complies for j in oracle_of(model)(EXCHANGES, POLICY)} == {None}


def test_a_model_that_scales_its_logits_in_an_unknown_way_is_refused():
    model = tiny_model("llama")
    forward = model.forward

    def scaled(*args, **kwargs):
        output = forward(*args, **kwargs)
        output.logits = output.logits * 3
        return output

    model.forward = scaled
    with pytest.raises(OracleError, match=r"LlamaForCausalLM computes its logits.*`judging.oracle: chat`"):
        oracle_of(model)(EXCHANGES, POLICY)


def test_answers_with_the_same_first_token_are_refused():
    question = Question(QUESTION.render, "Ya", "Yb", "digest")
    with pytest.raises(OracleError, match=r"'Ya' and 'Yb' no first tokens of their own"):
        oracle_of(tiny_model("llama"), question=question)(EXCHANGES, POLICY)


def test_every_exchange_is_judged_once_and_in_order():
    oracle = oracle_of(tiny_model("llama"), token_budget=30)
    assert sorted(p for p, _ in oracle.stream(EXCHANGES, POLICY)) == list(range(len(EXCHANGES)))
    assert judge_in_order(oracle, EXCHANGES, POLICY)[1] == oracle(EXCHANGES, POLICY)[1]


def with_template(template):
    """A tokenizer that has only a chat template."""
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(BPE()))
    tokenizer.chat_template = template
    return tokenizer


CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def test_a_model_without_a_chat_template_is_refused():
    with pytest.raises(OracleError, match=r"has no chat template.*`judging.local_lm.template`"):
        build_chat_question(with_template(None))


def test_the_question_has_the_policy_as_system_message():
    text = build_chat_question(with_template(CHATML)).render(POLICY, EXCHANGES[0])
    system, user = text.index("<|im_start|>system"), text.index("<|im_start|>user")
    assert system < text.index(POLICY.text) < user < text.index('{"prompt": "ab", "response": "c"}')
    assert text.endswith("Answer with one word, Yes or No.<|im_end|>\n<|im_start|>assistant\n")


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no') }}{% endif %}"
        "[{{ m['content'] }}]{% endfor %}",
        "{% for m in messages %}{% if m['role'] != 'system' %}[{{ m['content'] }}]{% endif %}{% endfor %}",
    ],
)
def test_a_template_without_a_system_role_has_the_policy_in_the_users_turn(template):
    text = build_chat_question(with_template(template)).render(POLICY, EXCHANGES[0])
    assert text.count(POLICY.text) == 1
    assert text.count("[") == 1


def test_another_wording_is_another_question():
    digests = {build_chat_question(with_template(template)).digest for template in (CHATML, CHATML + " ")}
    digests |= {build_guard_question(with_template(CHATML), family).digest for family in GUARD_FORMATS}
    assert len(digests) == 5


def test_the_day_is_no_part_of_the_question():
    """Templates may name it: every verdict that is kept would be of its day, and asked again on the next."""
    question = build_chat_question(with_template("{{ strftime_now('%d %b %Y') }}" + CHATML))
    assert question.render(POLICY, EXCHANGES[0]).startswith("26 Jul 2024<|im_start|>")


def test_an_added_word_stays_a_word():
    tokenizer = with_template(CHATML)
    tokenizer.add_tokens(["aspirin", "[dose]"])
    text = build_chat_question(tokenizer).render(POLICY, Exchange("ab", "aspirin [dose]"))
    assert '"aspirin \\u005bdose]"' in text


SPECIAL = ["<|im_start|>", "<|im_end|>", "<|eot_id|>", "<|begin_of_text|>", "<|start_header_id|>"]
SPECIAL += ["<|end_header_id|>", "<bos>", "<start_of_turn>", "<end_of_turn>", "<|end_of_text|>"]
SPECIAL += [
    "<|start_of_role|>",
    "<|end_of_role|>",
    "</s>",
    "[INST]",
    "[/INST]",
    "<｜User｜>",
    "<｜Assistant｜>",
    "[UNUSED_TOKEN_145]",
    "[UNUSED_TOKEN_146]",
    "[gMASK]",
    "sop",
    '"}}',
    "☃",
    "🙂",
]


@pytest.fixture(scope="module")
def special_tokenizer():
    """Of bytes, with the special tokens of many families."""
    vocabulary = {letter: i for i, letter in enumerate(sorted(ByteLevel.alphabet()))}
    tokenizer = Tokenizer(BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, additional_special_tokens=SPECIAL)
    fast.chat_template = CHATML
    return fast


@pytest.mark.parametrize("family", ["chat", "llama_guard", "shieldgemma", "granite_guardian"])
def test_no_special_token_comes_from_a_response(special_tokenizer, family):
    special = set(special_tokenizer.convert_tokens_to_ids(SPECIAL))
    question = (
        build_chat_question(special_tokenizer)
        if family == "chat"
        else build_guard_question(special_tokenizer, family)
    )

    def special_ids(response):
        text = question.render(POLICY, Exchange("ab", response))
        return [i for i in special_tokenizer(text, add_special_tokens=False)["input_ids"] if i in special]

    harmless = special_ids("Hello.")
    assert harmless, "the format has special tokens of its own"
    for injection in INJECTIONS:
        assert special_ids(injection) == harmless, injection
