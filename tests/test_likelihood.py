import json

import naive
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_decoders import VOCABULARY, tiny_model, tiny_pairs, tiny_tokenizer, with_lora

from realignment.likelihood import (
    LikelihoodError,
    check_shared_prompt,
    output_head,
    response_hidden_states,
    response_log_probabilities,
    scoring_mode,
    sum_per_response,
    token_log_probabilities,
)
from realignment.rows import Rows, batches_by_tokens, lay_out
from realignment.tokenization import TokenizedPair, chat_messages, prompt_text, tokenize_pair

PAIRS = tiny_pairs([2, 3, 1, 2])


@pytest.fixture(scope="module")
def model():
    return tiny_model()


def score(model, pairs, **options):
    return response_log_probabilities(model, lay_out(pairs, pad_id=0, dtype=model.dtype, **options)).detach()


@pytest.mark.parametrize("family", ["llama_tied", "llama", "qwen2", "mistral", "gpt2"])
def test_log_probabilities_of_laid_out_rows_equal_plain_separate_forwards(family):
    model = tiny_model(family)
    plain = [value for pair in PAIRS for value in naive.log_probabilities(model, pair)]
    torch.testing.assert_close(score(model, PAIRS), torch.stack(plain).detach())


def test_gradients_through_laid_out_rows_equal_those_of_plain_separate_forwards(model):
    weights = torch.linspace(-1, 2, 8, dtype=torch.float64)
    laid_out = response_log_probabilities(model, lay_out(PAIRS, pad_id=0, dtype=model.dtype))
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
    filled = response_log_probabilities(model, lay_out([*PAIRS, long], pad_id=11, dtype=model.dtype))
    torch.testing.assert_close(filled[:-1], alone)


def test_the_log_probabilities_of_all_continuations_of_a_prompt_add_up_to_one(model):
    every = tuple([token] for token in range(VOCABULARY))
    total = score(model, [TokenizedPair([4, 8], every)]).exp().sum()
    torch.testing.assert_close(total, torch.ones_like(total))


def test_positions_restart_at_the_end_of_the_prompt_and_tokens_are_predicted_by_what_precedes_them():
    rows = lay_out([TokenizedPair([7, 8, 9], ([10, 11], [12, 13, 14]))], pad_id=0)
    assert rows.position_ids.tolist() == [[0, 1, 2, 3, 4, 3, 4, 5]]
    assert rows.source.tolist() == [2, 3, 2, 5, 6]
    assert rows.target.tolist() == [10, 11, 12, 13, 14]
    assert rows.response.tolist() == [0, 0, 1, 1, 1]
    seen = (rows.attention_mask[0, 0] == 0).int().tolist()
    assert seen[4] == [1, 1, 1, 1, 1, 0, 0, 0]
    assert seen[6] == [1, 1, 1, 0, 0, 1, 1, 0]


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
def test_an_empty_prompt_or_response_is_refused_by_name(pair, what):
    with pytest.raises(LikelihoodError, match=f"Pair 1 has an {what}.*Drop the pair"):
        lay_out([PAIRS[0], pair], pad_id=0)


@pytest.mark.parametrize("chosen", [[0], [0, 2], [1, 2, 3], [0, 1, 2, 3]])
def test_selecting_rows_is_laying_out_the_subset_but_for_padding(model, chosen):
    selected = lay_out(PAIRS, pad_id=0, dtype=model.dtype).select(torch.tensor(chosen))
    subset = [PAIRS[i] for i in chosen]
    fresh, width = lay_out(subset, pad_id=0, dtype=model.dtype), max(map(len, subset))
    for name in ("row", "source", "target", "response", "pair", "length"):
        assert getattr(selected, name).equal(getattr(fresh, name)), name
    assert selected.input_ids[:, :width].equal(fresh.input_ids)
    torch.testing.assert_close(response_log_probabilities(model, selected), score(model, subset))


@pytest.mark.parametrize("tile", [1, 3, 4, 100])
def test_token_log_probabilities_and_their_gradients_match_dense_logits_at_any_tile_size(tile):
    torch.manual_seed(0)
    hidden, head = (torch.randn(shape, dtype=torch.float64) for shape in ((7, 3), (5, 3)))
    target, weights = torch.randint(5, (7,)), torch.randn(7, dtype=torch.float64)
    results = []
    for function in (
        lambda *inputs: token_log_probabilities(*inputs, tile=tile),
        naive.dense_log_probabilities,
    ):
        leaves = [hidden.clone().requires_grad_(), head.clone().requires_grad_()]
        values = function(*leaves, target)
        results.append((values.detach(), *torch.autograd.grad((weights * values).sum(), leaves)))
    torch.testing.assert_close(*results)


@pytest.mark.parametrize(("hidden_moves", "head_moves"), [(True, True), (True, False), (False, True)])
def test_token_log_probabilities_pass_gradcheck(hidden_moves, head_moves):
    torch.manual_seed(0)
    hidden, head = (torch.randn(shape, dtype=torch.float64) for shape in ((4, 3), (5, 3)))
    target = torch.tensor([0, 4, 4, 2])
    inputs = (hidden.requires_grad_(hidden_moves), head.requires_grad_(head_moves))
    assert torch.autograd.gradcheck(lambda *moving: token_log_probabilities(*moving, target, tile=3), inputs)


def test_log_probabilities_of_a_half_precision_model_are_float32(model):
    hidden, head = torch.randn(3, 4).bfloat16(), torch.randn(9, 4).bfloat16()
    assert token_log_probabilities(hidden, head, torch.tensor([0, 1, 2])).dtype == torch.float32


def test_sums_add_up_each_response_by_itself():
    rows = lay_out(PAIRS, pad_id=0)
    assert sum_per_response(torch.ones(len(rows.target)), rows).tolist() == rows.length.tolist()


@pytest.mark.parametrize("family", ["llama_tied", "qwen2", "mistral", "gpt2"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_decoders_with_one_head_matrix_pass_the_check_in_every_precision(family, dtype):
    check_shared_prompt(tiny_model(family, dtype=dtype))


def test_soft_capped_logits_are_refused():
    with pytest.raises(LikelihoodError, match=r"Gemma2ForCausalLM.*soft-capping"):
        check_shared_prompt(tiny_model("gemma2"))


def test_the_check_leaves_the_models_mode_as_it_was(model):
    check_shared_prompt(model.train())
    assert model.training
    model.eval()


def test_a_pair_beyond_the_sliding_window_is_refused_and_a_shorter_one_is_exact():
    model = tiny_model("mistral_window")
    check_shared_prompt(model)
    fits = TokenizedPair([3] * 5, ([4, 5, 6, 7, 8, 9, 1], [9, 8, 1]))
    torch.testing.assert_close(
        score(model, [fits]), torch.stack(naive.log_probabilities(model, fits)).detach()
    )
    with pytest.raises(LikelihoodError, match=r"13 tokens, expected at most the 12 of the sliding window"):
        score(model, [TokenizedPair([3] * 5, ([4] * 8,))])


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
    rows = lay_out(PAIRS, pad_id=0, dtype=model.dtype)
    with scoring_mode(model):
        torch.testing.assert_close(response_hidden_states(model, rows), response_hidden_states(model, rows))
    assert not torch.equal(response_hidden_states(model, rows), response_hidden_states(model, rows))
    with pytest.raises(ZeroDivisionError), scoring_mode(model):
        raise ZeroDivisionError
    assert model.training


@given(st.lists(st.integers(1, 60), max_size=40), st.integers(1, 200))
@settings(deadline=None)
def test_batches_hold_every_index_once_and_stay_within_the_budget(lengths, budget):
    batches = list(batches_by_tokens(lengths, budget=budget))
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= budget


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
    rows = lay_out(PAIRS, pad_id=0)
    moved = rows.to("cpu")
    assert all(getattr(moved, name).equal(getattr(rows, name)) for name in Rows.__slots__)
