import copy
import json

import naive
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tiny_decoders import (
    DECODERS,
    GPT2_SIZES,
    OTHERS,
    SIZES,
    VOCABULARY,
    WIDTH,
    tiny_model,
    tiny_pairs,
    tiny_tokenizer,
    with_lora,
)
from transformers import (
    FalconConfig,
    FalconForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PhimoeConfig,
    PhimoeForCausalLM,
    Qwen2MoeConfig,
    Qwen2MoeForCausalLM,
)

from realignment.likelihood import limits
from realignment.likelihood.attention import SHARED_PROMPTS
from realignment.likelihood.backbone import autocast, compute_dtype, output_head, scoring_mode
from realignment.likelihood.layout_probe import can_share_prompts, choose_layout
from realignment.likelihood.limits import LikelihoodError
from realignment.likelihood.log_probs import (
    response_hidden_states,
    response_log_probabilities,
    sum_per_response,
)
from realignment.likelihood.packing import Layout, Rows, pack_pairs
from realignment.likelihood.tokenization import TokenizedPair, chat_messages, prompt_text, tokenize_pair

FALCON = {"vocab_size": VOCABULARY, "hidden_size": WIDTH, "num_hidden_layers": 1, "num_attention_heads": 2}
OPT = {"vocab_size": VOCABULARY, "hidden_size": WIDTH, "ffn_dim": 24, "word_embed_proj_dim": WIDTH}
OPT |= {"num_attention_heads": 2, "num_hidden_layers": 1, "max_position_embeddings": 128}
PAIRS = tiny_pairs([2, 3, 1, 2])
LONG = tiny_pairs([2, 3, 1, 2], longest=16)


@pytest.fixture(scope="module")
def model():
    return tiny_model()


def score(model, pairs, **options):
    return response_log_probabilities(model, pack_pairs(pairs, pad_id=0, **options)).detach()


def assert_equals_plain_forwards(model, layout):
    """Gemma, Mamba and GPT-Neo compute parts in float32 whatever their dtype."""
    plain = torch.stack([value for pair in LONG for value in naive.log_probabilities(model, pair)]).detach()
    tolerance = 1e-4 if model.config.model_type in ("gemma2", "gemma3_text", "mamba", "gpt_neo") else 1e-9
    actual = response_log_probabilities(model, layout(LONG)).detach()
    torch.testing.assert_close(actual, plain.to(actual.dtype), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("family", DECODERS)
def test_log_probabilities_of_laid_out_rows_equal_plain_separate_forwards(family):
    """Windows, soft-capping and scaled logits included: `LONG` reaches beyond every window."""
    assert_equals_plain_forwards(tiny_model(family), Layout(pad_id=0))


def test_gradients_through_laid_out_rows_equal_those_of_plain_separate_forwards(model):
    weights = torch.linspace(-1, 2, 8, dtype=torch.float64)
    laid_out = response_log_probabilities(model, pack_pairs(PAIRS, pad_id=0))
    plain = torch.stack([value for pair in PAIRS for value in naive.log_probabilities(model, pair)])
    ours, twin = (naive.gradient(model, (weights * values).sum()) for values in (laid_out, plain))
    torch.testing.assert_close(ours, twin)


def test_a_response_is_as_likely_with_any_sibling_or_none(model):
    pair = PAIRS[1]
    alone = [score(model, [TokenizedPair(pair.prompt, (response,))]) for response in pair.responses]
    torch.testing.assert_close(score(model, [pair]), torch.cat(alone))
    other = TokenizedPair(pair.prompt, (pair.responses[0], [5, 9, 9, 9, 5], pair.responses[2]))
    torch.testing.assert_close(score(model, [other])[[0, 2]], score(model, [pair])[[0, 2]])


def test_the_order_of_the_responses_does_not_matter(model):
    turned = TokenizedPair(PAIRS[1].prompt, PAIRS[1].responses[::-1])
    torch.testing.assert_close(score(model, [turned]).flip(0), score(model, [PAIRS[1]]))


def test_neither_batch_nor_padding_nor_the_padding_token_matters(model):
    alone = torch.cat([score(model, [pair]) for pair in PAIRS])
    long = TokenizedPair([3] * 9, ([4] * 30,))
    torch.testing.assert_close(score(model, PAIRS), alone)
    torch.testing.assert_close(score(model, [*PAIRS, long])[:-1], alone)
    filled = response_log_probabilities(model, pack_pairs([*PAIRS, long], pad_id=11))
    torch.testing.assert_close(filled[:-1], alone)


def test_the_log_probabilities_of_all_continuations_of_a_prompt_add_up_to_one(model):
    every = tuple([token] for token in range(VOCABULARY))
    total = score(model, [TokenizedPair([4, 8], every)]).exp().sum()
    torch.testing.assert_close(total, torch.ones_like(total))


def test_positions_restart_at_the_end_of_the_prompt_and_tokens_are_predicted_by_what_precedes_them():
    rows = pack_pairs([TokenizedPair([7, 8, 9], ([10, 11], [12, 13, 14]))], pad_id=0)
    assert rows.position_ids.tolist() == [[0, 1, 2, 3, 4, 3, 4, 5]]
    assert rows.source.tolist() == [2, 3, 2, 5, 6]
    assert rows.target.tolist() == [10, 11, 12, 13, 14]
    assert rows.response.tolist() == [0, 0, 1, 1, 1]
    assert [group.tolist() for group in rows.sequences] == [[[0, 1, 2, 5, 6, 7]], [[0, 1, 2, 3, 4]]]
    assert rows.inverse.tolist() == [6, 7, 8, 9, 10, 3, 4, 5]


def test_sequences_of_similar_length_share_a_call_of_the_kernel():
    pairs = [TokenizedPair([1], ([3] * 19, [3] * 9)), TokenizedPair([2], ([4] * 18, [4] * 19))]
    rows = pack_pairs(pairs, pad_id=0)
    assert [tuple(group.shape) for group in rows.sequences] == [(3, 20), (1, 10)]
    assert rows.sequences[0][2].tolist() == [*range(29, 48), 47]  # padded with its last token
    places = torch.cat([group.flatten() for group in rows.sequences])
    assert places[rows.inverse].tolist() == list(range(rows.input_ids.numel()))


def test_a_response_of_one_token_is_predicted_by_the_prompt_alone(model):
    pair = TokenizedPair([4, 8, 15], ([16], [23, 1]))
    torch.testing.assert_close(
        score(model, [pair])[0], naive.log_probability(model, [4, 8, 15], [16]).detach()
    )


@pytest.mark.parametrize(
    ("pair", "what"),
    [
        (TokenizedPair([], ([3],)), "empty prompt"),
        (TokenizedPair([3], ([4], [])), "empty response 1"),
        (TokenizedPair([3], ()), "empty list of responses"),
    ],
)
@pytest.mark.parametrize("share_prompts", [True, False])
def test_an_empty_prompt_or_response_is_refused_by_name(pair, what, share_prompts):
    with pytest.raises(LikelihoodError, match=f"Pair 1 has an {what}.*Drop the pair"):
        Layout(0, share_prompts)([PAIRS[0], pair])


def test_sums_add_up_each_response_by_itself():
    rows = pack_pairs(PAIRS, pad_id=0)
    assert sum_per_response(torch.ones(len(rows.target)), rows).tolist() == rows.length.tolist()


@pytest.mark.parametrize("family", DECODERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_decoder_can_share_prompts_in_every_precision(family, dtype):
    assert can_share_prompts(tiny_model(family, dtype=dtype))


@pytest.mark.parametrize("family", OTHERS)
def test_recurrent_and_hybrid_models_are_found_out_and_laid_out_separately(family, caplog):
    model = tiny_model(family)
    layout = choose_layout(model, pad_id=2)
    assert not layout.share_prompts
    assert "every response is computed with its own copy of the prompt" in caplog.text
    assert_equals_plain_forwards(model, layout)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", ["lfm2", "falcon", "gpt_neo"])
def test_a_wrong_layout_is_told_from_rounding_in_every_precision(family, dtype):
    """Falcon and GPT-Neo read a mask that ours is not: it used to be whatever lay in that memory."""
    assert not can_share_prompts(tiny_model(family, dtype=dtype))


def test_under_autocast_prompts_are_shared_within_the_rounding_of_bfloat16():
    model = tiny_model("llama", dtype=torch.float32)
    autocast(model)
    assert can_share_prompts(model)


LONG_WINDOW = SIZES | {"max_position_embeddings": 512, "sliding_window": 120}
EXPERTS = {"moe_intermediate_size": 8, "shared_expert_intermediate_size": 8, "num_experts": 2}
EXPERTS |= {"num_experts_per_tok": 1, "use_sliding_window": True, "layer_types": ["sliding_attention"] * 2}
LONGER_THAN_THE_PROBE = {
    "told to attention": (lambda: MistralForCausalLM(MistralConfig(**LONG_WINDOW)), True),
    "in the mask alone": (lambda: Qwen2MoeForCausalLM(Qwen2MoeConfig(**LONG_WINDOW, **EXPERTS)), False),
    "of a family without kinds of layers": (
        lambda: PhimoeForCausalLM(PhimoeConfig(**LONG_WINDOW, num_local_experts=2)),
        False,
    ),
}


@pytest.mark.parametrize("where", LONGER_THAN_THE_PROBE)
def test_a_window_longer_than_the_probe_is_never_mistaken_for_full_attention(where, caplog):
    make, shared = LONGER_THAN_THE_PROBE[where]
    torch.manual_seed(0)
    model = make().eval()
    layout = choose_layout(model, pad_id=2)
    assert layout.share_prompts == shared
    assert shared or "not told of its window of 120 tokens" in caplog.text
    (pair,) = tiny_pairs([2], longest=100)
    pair = TokenizedPair(torch.arange(3, 153).remainder(VOCABULARY).tolist(), pair.responses)
    plain = torch.stack(naive.log_probabilities(model, pair)).detach()
    actual = response_log_probabilities(model, layout([pair])).detach()
    torch.testing.assert_close(actual, plain, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("family", OTHERS)
def test_gradients_of_separate_rows_equal_those_of_plain_forwards(family):
    model = tiny_model(family)
    laid_out = response_log_probabilities(model, pack_pairs(PAIRS, pad_id=2, share_prompts=False))
    plain = torch.stack([value for pair in PAIRS for value in naive.log_probabilities(model, pair)])
    weights = torch.linspace(-1, 2, len(plain), dtype=torch.float64)
    ours, twin = (naive.gradient(model, (weights * values).sum()) for values in (laid_out, plain))
    torch.testing.assert_close(ours, twin, rtol=1e-4, atol=1e-5)


FACTORS = {"short_factor": [1.0] * 2, "long_factor": [4.0] * 2, "rope_theta": 10000.0, "factor": 4.0}
FACTORS |= {"partial_rotary_factor": 1.0}
LIMITED = {
    "GPT-2": (lambda: tiny_model("gpt2"), 128, "a learned embedding for each"),
    "OPT": (lambda: OPTForCausalLM(OPTConfig(**OPT)), 128, "a learned embedding for each"),
    "longrope": (
        lambda: Phi3ForCausalLM(
            Phi3Config(
                **SIZES | {"max_position_embeddings": 512},
                original_max_position_embeddings=128,
                rope_scaling={"rope_type": "longrope", **FACTORS},
            )
        ),
        128,
        "longrope frequencies change for all sequences",
    ),
    "dynamic": (
        lambda: LlamaForCausalLM(LlamaConfig(**SIZES, rope_scaling={"rope_type": "dynamic", **FACTORS})),
        128,
        "dynamic frequencies change for all sequences",
    ),
}


@pytest.mark.parametrize("name", LIMITED)
def test_a_sequence_beyond_the_models_positions_is_refused_by_name_before_anything_is_computed(name):
    make, limit, reason = LIMITED[name]
    torch.manual_seed(0)
    model = make().double().eval()
    layout = choose_layout(model, pad_id=2)
    longest = TokenizedPair([3] * (limit - 2), ([4, 1], [5]))
    plain = torch.stack(naive.log_probabilities(model, longest)).detach()
    torch.testing.assert_close(response_log_probabilities(model, layout([longest])).detach(), plain)
    pairs = [PAIRS[0], TokenizedPair(longest.prompt, ([4], [5, 6, 1])), longest]
    message = (
        f"Pair 1 .* {limit + 1} tokens.*at most {limit}: .*{reason}.*Drop the 1 of 3 pairs.*max_response"
    )
    for use in (layout, lambda pairs: list(layout.batches(pairs, budget=None))):
        with pytest.raises(LikelihoodError, match=message):
            use(pairs)


def test_a_rotary_model_warns_once_beyond_the_length_it_was_trained_on(caplog, model):
    limits._warn_once.cache_clear()
    layout = choose_layout(model, pad_id=2)
    layout([TokenizedPair([3] * 126, ([4, 1], [5]))])
    assert not caplog.text
    for longer in (127, 128):
        layout([TokenizedPair([3] * longer, ([4, 1], [5]))])
    assert caplog.text.count("more than the 128 tokens together on which the model was trained") == 1


def test_a_model_whose_logits_are_not_head_times_state_is_refused():
    class Shifted(LlamaForCausalLM):
        def forward(self, *args, **kwargs):
            output = super().forward(*args, **kwargs)
            output.logits = output.logits * 3
            return output

    model = tiny_model("llama")
    model.__class__ = Shifted
    with pytest.raises(LikelihoodError, match=r"Shifted gives other .*has -\d.* nats, expected -\d"):
        can_share_prompts(model)


def test_the_check_leaves_the_models_mode_as_it_was(model):
    can_share_prompts(model.train())
    assert model.training
    model.eval()


@pytest.mark.parametrize("family", DECODERS)
def test_sharing_prompts_leaves_other_uses_of_the_model_as_they_were(family):
    model, ids = tiny_model(family), torch.tensor([[2, 2, 5, 6, 7], [3, 4, 5, 6, 7]])
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    options = {"attention_mask": mask, "max_new_tokens": 16, "do_sample": False}

    @torch.no_grad()
    def use():
        # Without padding no mask is built, and a token must see no later one all the same.
        return model.generate(ids, **options), model(ids).logits, model(torch.arange(3, 33)[None]).logits

    before = use()
    score(model, PAIRS)
    assert model.config._attn_implementation == SHARED_PROMPTS
    for actual, expected in zip(use(), before, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("share_prompts", [True, False])
def test_only_tokens_that_are_there_are_computed_where_prompts_are_shared(share_prompts):
    rows = pack_pairs(PAIRS, pad_id=0, share_prompts=share_prompts)
    tokens = sum(len(pair) for pair in PAIRS)
    copies = sum(len(pair.prompt) * (len(pair.responses) - 1) for pair in PAIRS)
    assert int(rows.is_token.sum()) == (tokens if share_prompts else tokens + copies)
    assert rows.is_token.all() == share_prompts


SHAPES = st.lists(
    st.tuples(st.integers(1, 9), st.lists(st.integers(1, 12), min_size=1, max_size=4)), min_size=1, max_size=5
)


@settings(deadline=None, max_examples=30)
@given(shapes=SHAPES, seed=st.integers(0, 9), share_prompts=st.booleans(), budget=st.integers(1, 40))
@example(shapes=[(1, [1]), (9, [12, 1])], seed=0, share_prompts=True, budget=1)
def test_pairs_of_any_shape_are_as_likely_in_batches_of_any_budget_as_alone(
    shapes, seed, share_prompts, budget
):
    """Also one token of prompt, one of response, and a response longer than the budget."""
    generator, model = torch.Generator().manual_seed(seed), tiny_model()

    def draw(size):
        return torch.randint(3, VOCABULARY, (size,), generator=generator).tolist()

    pairs = [TokenizedPair(draw(prompt), tuple(map(draw, responses))) for prompt, responses in shapes]
    layout, logprobs = Layout(0, share_prompts), {}
    for members in layout.batches(pairs, budget=budget):
        rows = layout([pairs[i] for i in members])
        values = response_log_probabilities(model, rows).detach()
        logprobs |= {index: values[rows.pair == rank] for rank, index in enumerate(members)}
    for index, pair in enumerate(pairs):
        plain = torch.stack(naive.log_probabilities(model, pair)).detach()
        torch.testing.assert_close(logprobs[index], plain)


def test_a_head_with_a_bias_is_refused():
    model = tiny_model("llama")
    model.lm_head = torch.nn.Linear(WIDTH, VOCABULARY)
    with pytest.raises(LikelihoodError, match="Linear with a bias"):
        output_head(model)


def test_an_adapter_on_the_output_head_is_refused():
    adapted = with_lora(tiny_model("llama"), targets=["q_proj", "lm_head"])
    with pytest.raises(LikelihoodError, match=r"output head.*target_modules"):
        output_head(adapted)


def test_a_fresh_adapter_changes_nothing_and_a_moved_one_does(model):
    before = score(model, PAIRS)
    torch.testing.assert_close(score(with_lora(tiny_model()), PAIRS), before)
    assert (score(with_lora(tiny_model(), moved=True), PAIRS) - before).abs().min() > 1e-4


def test_scoring_mode_switches_dropout_off_and_back_on_even_after_an_error():
    model = with_lora(tiny_model(), moved=True, dropout=0.5).train()
    rows = pack_pairs(PAIRS, pad_id=0)
    with scoring_mode(model):
        torch.testing.assert_close(response_hidden_states(model, rows), response_hidden_states(model, rows))
    assert not torch.equal(response_hidden_states(model, rows), response_hidden_states(model, rows))
    with pytest.raises(ZeroDivisionError), scoring_mode(model):
        raise ZeroDivisionError
    assert model.training


DROPPING = {
    "OPT": lambda: OPTForCausalLM(OPTConfig(**OPT, dropout=0.5, attention_dropout=0.5)),
    "Falcon": lambda: FalconForCausalLM(FalconConfig(**FALCON, hidden_dropout=0.5, attention_dropout=0.5)),
    "GPT-2": lambda: GPT2LMHeadModel(GPT2Config(**GPT2_SIZES, resid_pdrop=0.5, embd_pdrop=0.5)),
}


@pytest.mark.parametrize("reentrant", [None, True, False])
@pytest.mark.parametrize("name", DROPPING)
def test_layers_that_drop_out_by_themselves_do_not_while_scoring_under_checkpointing(name, reentrant):
    """A layer checkpoints in train mode alone, and OPT's and Falcon's ask their own mode whether to drop."""
    torch.manual_seed(0)
    model = DROPPING[name]().double().eval()
    rows = pack_pairs(PAIRS, pad_id=0, share_prompts=name == "GPT-2")

    def gradient():
        return naive.gradient(model, response_log_probabilities(model, rows).sum())

    expected = response_log_probabilities(model, rows).detach(), gradient()
    model.train()
    if reentrant is not None:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
    with scoring_mode(model):
        actual = (
            response_log_probabilities(model, rows).detach(),
            gradient() if not reentrant else expected[1],
        )
    torch.testing.assert_close(actual, expected)
    assert all(module.training for module in model.modules())
    before = response_log_probabilities(model, rows).detach()
    assert not torch.equal(response_log_probabilities(model, rows).detach(), before)


def test_checkpointed_layers_are_computed_again_in_the_backward_of_a_score():
    model = tiny_model("llama").train()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    passes = []
    model.model.layers[0].mlp.register_forward_pre_hook(lambda *_: passes.append(1))
    with scoring_mode(model):
        score = response_log_probabilities(model, pack_pairs(PAIRS, pad_id=0)).sum()
        assert len(passes) == 1
        score.backward()
    assert len(passes) == 2


@settings(deadline=None)
@given(
    shapes=st.lists(st.tuples(st.integers(1, 20), st.integers(1, 30)), max_size=20),
    budget=st.integers(1, 200),
)
@pytest.mark.parametrize("share_prompts", [True, False])
def test_batches_hold_every_pair_once_and_stay_within_the_budget(share_prompts, shapes, budget):
    layout = Layout(0, share_prompts)
    pairs = [TokenizedPair([3] * prompt, ([4] * response, [5])) for prompt, response in shapes]
    batches = list(layout.batches(pairs, budget=budget))
    assert sorted(index for batch in batches for index in batch) == list(range(len(pairs)))
    for batch in batches:
        assert len(batch) == 1 or layout([pairs[i] for i in batch]).input_ids.numel() <= budget
    assert [sorted(batch) for batch in layout.batches(pairs, budget=None)] == [list(range(len(pairs)))][
        : len(pairs)
    ]


def test_the_prompt_is_what_generation_sees_and_responses_end_with_the_end_of_turn_token():
    tokenizer, chat = tiny_tokenizer(), chat_messages("How?")
    pair = tokenize_pair(tokenizer, chat, [" Thus. ", "So"], max_response_tokens=50)
    generation = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True)[
        "input_ids"
    ]
    assert pair.prompt == generation
    assert [tokenizer.decode(response) for response in pair.responses] == ["Thus.<|end|>", "So<|end|>"]
    whole = prompt_text(tokenizer, chat) + "Thus.<|end|>"
    assert tokenizer(whole, add_special_tokens=False)["input_ids"] == [*pair.prompt, *pair.responses[0]]


def test_a_response_over_the_budget_is_cut_and_loses_its_end_of_turn_token():
    tokenizer = tiny_tokenizer()
    (cut, whole), end = (
        tokenize_pair(tokenizer, chat_messages("?"), ["abcd", "abc"], max_response_tokens=4).responses,
        tokenizer.eos_token_id,
    )
    assert tokenizer.decode(cut) == "abcd"
    assert whole[-1] == end
    assert len(cut) == len(whole) == 4


def test_an_empty_response_is_the_end_of_turn_token_alone():
    tokenizer = tiny_tokenizer()
    pair = tokenize_pair(tokenizer, chat_messages("?"), ["  "], max_response_tokens=4)
    assert pair.responses == ([tokenizer.eos_token_id],)


def test_messages_of_the_data_replace_the_single_user_turn():
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "How?"}]
    assert chat_messages("How?", json.dumps(turns)) == turns
    for nothing in (None, "", float("nan")):
        assert chat_messages("How?", nothing) == [{"role": "user", "content": "How?"}]


def test_a_tokenizer_without_template_gets_the_bare_turns():
    assert prompt_text(tiny_tokenizer(template=None), chat_messages("How?")) == "How?\n\n"


def test_moving_rows_keeps_every_field():
    rows = pack_pairs(PAIRS, pad_id=0)
    torch.testing.assert_close(
        *([getattr(laid, name) for name in Rows.__slots__] for laid in (rows.to("cpu"), rows))
    )


def test_autocast_multiplies_in_bfloat16_for_every_caller_and_for_copies():
    exact, mixed = tiny_model(dtype=torch.float32), tiny_model(dtype=torch.float32)
    autocast(mixed)
    assert (compute_dtype(exact), compute_dtype(mixed)) == (torch.float32, torch.bfloat16)
    assert {p.dtype for p in mixed.parameters()} == {torch.float32}
    rows = pack_pairs(PAIRS, pad_id=0)
    values, rounded, copied = (
        response_log_probabilities(model, rows) for model in (exact, mixed, copy.deepcopy(mixed))
    )
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded, copied)
    error = float((rounded - values).detach().abs().max() / values.detach().abs().max())
    assert 1e-5 < error < 0.02
