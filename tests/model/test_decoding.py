"""Answers decoded together are those of each prompt alone, whoever joins and leaves the batch."""

import pytest
import torch
from tiny_decoders import DECODERS, FAMILIES, VOCABULARY, tiny_model

from realignment.model.decoding import Row, decode
from realignment.model.generation import decode_in_batches
from realignment.model.key_values import has_full_attention_alone, has_key_values_alone

ENDS = [1, 7, 19]
LIMIT = 14


def make_prompts(n, *, shared=5, seed=0):
    """Prompts that begin alike, some of them with nothing but one token more."""
    generator = torch.Generator().manual_seed(seed)

    def draw(length):
        return torch.randint(3, VOCABULARY, (length,), generator=generator).tolist()

    head = draw(shared)
    return [head + draw(1 + (3 * i) % 8) for i in range(n)]


def naive_answer(model, prompt, ends=ENDS, limit=LIMIT):
    """Slow, and obviously right: no batch, no padding, no cache."""
    tokens, entropy = [], 0.0
    while len(tokens) < limit and not (tokens and tokens[-1] in ends):
        with torch.no_grad():
            logits = model(torch.tensor([[*prompt, *tokens]]), use_cache=False).logits[0, -1]
        tokens.append(int(logits.argmax()))
        probabilities = logits.double().softmax(-1)
        entropy -= float((probabilities * probabilities.log()).sum())
    return tokens, entropy


@torch.no_grad()
def decode_all(model, prompts, batch_size, *, run=decode, **changes):
    rows = [Row(prompt) for prompt in prompts]
    settings = {"end_tokens": ENDS, "pad_token": 2, "max_new_tokens": LIMIT} | changes
    settings = {"report": lambda _: None} | settings
    run(model, rows, lambda logits, _: logits.argmax(-1), batch_size=batch_size, **settings)
    return rows


@pytest.mark.parametrize("batch_size", [1, 3, 8, 50])
@pytest.mark.parametrize("shared", [0, 5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_answers_are_those_of_each_prompt_alone(batch_size, shared, dtype):
    model = tiny_model("llama", dtype=dtype)
    prompts = make_prompts(20, shared=shared)
    rows = decode_all(model, prompts, batch_size)
    expected = [naive_answer(model, prompt) for prompt in prompts]
    assert [row.tokens for row in rows] == [tokens for tokens, _ in expected]
    assert [row.entropy for row in rows] == pytest.approx([entropy for _, entropy in expected], rel=1e-4)
    assert {len(row.tokens) for row in rows} > {LIMIT}, "some must end early, or no row ever leaves the batch"


@pytest.mark.parametrize("family", DECODERS)
def test_every_family_answers_as_it_does_alone(family):
    # Gemma's eager attention takes its softmax in float32, where the mask of float64 is −∞ and padding NaN.
    model = tiny_model(family, dtype=torch.float32 if family.startswith("gemma") else torch.float64)
    assert has_key_values_alone(model)
    prompts = make_prompts(12, shared=9, seed=1)
    rows = decode_all(model, prompts, 4)
    assert [row.tokens for row in rows] == [naive_answer(model, prompt)[0] for prompt in prompts]


@pytest.mark.parametrize("family", ["falcon", "gpt_neo"])
def test_families_with_an_attention_of_their_own_answer_as_they_do_alone(family):
    model = tiny_model(family)
    prompts = make_prompts(12, shared=9, seed=1)
    rows = decode_all(model, prompts, 4)
    assert [row.tokens for row in rows] == [naive_answer(model, prompt)[0] for prompt in prompts]


def test_a_window_hides_more_than_the_mask_of_a_shared_beginning_could_say():
    windows = {name for name in FAMILIES if not has_full_attention_alone(tiny_model(name))}
    assert windows == {"mistral_window", "gemma2", "gemma3", "gpt_neo", "mamba", "lfm2"}


def test_models_with_a_recurrent_state_are_known():
    assert {name for name in FAMILIES if not has_key_values_alone(tiny_model(name))} == {"mamba", "lfm2"}


@pytest.mark.parametrize(("family", "batch_size"), [("mamba", 1), ("lfm2", 1), ("llama", 1), ("llama", 5)])
def test_models_with_a_recurrent_state_answer_batch_by_batch(family, batch_size):
    model = tiny_model(family)
    prompts = make_prompts(8)
    reported = []
    rows = decode_all(model, prompts, batch_size, run=decode_in_batches, report=reported.append)
    expected = [naive_answer(model, prompt) for prompt in prompts]
    assert [row.tokens for row in rows] == [tokens for tokens, _ in expected]
    assert [row.entropy for row in rows] == pytest.approx([entropy for _, entropy in expected], rel=1e-4)
    assert all(row.finished for row in rows)
    assert sum(reported) == 8


def test_the_shared_beginning_is_read_once_and_ended_rows_are_not_read_on():
    model = tiny_model("llama")
    prompts = make_prompts(20)
    widths = []
    hook = model.model.register_forward_pre_hook(
        lambda _, __, options: widths.append(tuple(options["input_ids"].shape)), with_kwargs=True
    )
    rows = decode_all(model, prompts, 8)
    hook.remove()
    assert widths[0] == (1, 5)
    assert all(width <= 8 for _, width in widths[1:])
    steps = sum(count for count, width in widths if width == 1)
    needed = sum(len(row.tokens) - 1 for row in rows)
    assert needed <= steps
    longest = [max(len(row.tokens) for row in rows[i : i + 8]) for i in range(0, 20, 8)]
    assert steps < 8 * sum(longest), "as many as a batch that waits for its longest answer"


def test_a_prompt_that_is_the_beginning_of_all_others_is_answered():
    model = tiny_model("llama")
    prompts = [[5, 6], [5, 6, 7], [5, 6, 7, 8], [5, 6]]
    rows = decode_all(model, prompts, 3)
    assert [row.tokens for row in rows] == [naive_answer(model, prompt)[0] for prompt in prompts]


def test_an_answer_says_whether_it_ended_or_was_cut():
    rows = decode_all(tiny_model("llama"), make_prompts(20), 8)
    assert {row.ended for row in rows} == {True, False}
    for row in rows:
        assert row.finished
        assert row.ended == (row.tokens[-1] in ENDS)
        assert row.ended or len(row.tokens) == LIMIT
        assert not set(row.tokens[:-1]) & set(ENDS)


def test_every_finished_row_is_reported_once():
    reported = []
    decode_all(tiny_model("llama"), make_prompts(20), 6, report=reported.append)
    assert sum(reported) == 20


def test_nothing_to_decode_is_nothing():
    assert decode_all(tiny_model("llama"), [], 4) == []
