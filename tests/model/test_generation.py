"""Greedy and sampled answers, against one prompt at a time, one token at a time."""

from dataclasses import replace

import pytest
import torch
from tiny_models import load_model, save_model

from realignment.likelihood.tokenization import chat_messages, prompt_text
from realignment.model.generation import (
    Sampling,
    draw_tokens,
    generate_answers,
    generate_texts,
    select_nucleus,
)

CHATS = [
    chat_messages(text) for text in ("Why?", "a", "How does a plant grow tall?", "What now, then?", "ab")
]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return load_model(save_model(tmp_path_factory.mktemp("model"), seed=5))


def ends_of(model, tokenizer):
    return {model.generation_config.eos_token_id, tokenizer.eos_token_id}


def naive_answer(model, tokenizer, chat, max_new_tokens, penalty=1.0):
    """Slow, and obviously right: no batch, no padding, no cache."""
    ids = tokenizer(prompt_text(tokenizer, chat), add_special_tokens=False)["input_ids"]
    new = []
    for _ in range(max_new_tokens):
        with torch.no_grad():
            logits = model(torch.tensor([ids + new]), use_cache=False).logits[0, -1]
        seen = torch.tensor(sorted({*ids, *new}))
        logits[seen] = torch.where(logits[seen] > 0, logits[seen] / penalty, logits[seen] * penalty)
        new.append(int(logits.argmax()))
        if new[-1] in ends_of(model, tokenizer):
            break
    return tokenizer.decode(new, skip_special_tokens=True).strip()


@pytest.fixture(scope="module")
def expected(tiny):
    return [naive_answer(*tiny, chat, 12) for chat in CHATS]


def test_prompts_get_answers_of_their_own(expected):
    assert len(set(expected)) >= 3


@pytest.mark.parametrize("batch_size", [1, 2, 5, 99])
def test_answers_match_one_prompt_at_a_time(tiny, expected, batch_size):
    assert generate_texts(*tiny, CHATS, max_new_tokens=12, batch_size=batch_size) == expected


def test_a_repetition_penalty_of_one_is_plain_greedy_decoding(tiny, expected):
    answers = generate_texts(*tiny, CHATS, max_new_tokens=12, batch_size=5, repetition_penalty=1.0)
    assert answers == expected


@pytest.mark.parametrize("batch_size", [1, 5])
def test_a_repetition_penalty_divides_the_logits_of_tokens_that_occurred(tiny, expected, batch_size):
    answers = generate_texts(*tiny, CHATS, max_new_tokens=12, batch_size=batch_size, repetition_penalty=3.0)
    assert answers == [naive_answer(*tiny, chat, 12, penalty=3.0) for chat in CHATS]
    assert answers != expected


@pytest.mark.parametrize("order", [[4, 3, 2, 1, 0], [2, 0, 4, 1, 3]])
def test_answers_come_in_the_order_of_the_prompts(tiny, expected, order):
    answers = generate_texts(*tiny, [CHATS[i] for i in order], max_new_tokens=12, batch_size=2)
    assert answers == [expected[i] for i in order]


@pytest.mark.parametrize("limit", [1, 3])
def test_an_answer_is_cut_at_the_limit(tiny, expected, limit):
    answers = generate_texts(*tiny, CHATS, max_new_tokens=limit, batch_size=5)
    assert answers == [naive_answer(*tiny, chat, limit) for chat in CHATS]
    assert answers != expected


def test_an_answer_ends_at_the_tokenizers_end_of_turn(tiny):
    """Training ends responses with it, whatever the model's own configuration names."""
    model, tokenizer = tiny
    assert model.generation_config.eos_token_id != tokenizer.eos_token_id
    head = model.get_output_embeddings().weight
    before = head[tokenizer.eos_token_id].clone()
    hidden = []
    hook = model.lm_head.register_forward_pre_hook(lambda _, inputs: hidden.append(inputs[0][0, -1]))
    try:
        generate_texts(*tiny, CHATS[:1], max_new_tokens=1, batch_size=1)
        with torch.no_grad():
            head[tokenizer.eos_token_id] = hidden[0] * 1e3  # now the first token is the end
        assert generate_texts(*tiny, CHATS[:1], max_new_tokens=12, batch_size=1) == [""]
        assert len(hidden) == 2
    finally:
        hook.remove()
        with torch.no_grad():
            head[tokenizer.eos_token_id] = before


def test_no_prompts_are_no_answers(tiny):
    assert generate_texts(*tiny, [], max_new_tokens=4, batch_size=2) == []


SAMPLING = Sampling(temperature=0.8, top_p=0.9, seed=3)


def naive_probabilities(logits, sampling):
    """Token by token: the likeliest ones, until the nucleus is full."""
    probabilities = (logits / sampling.temperature).softmax(-1)
    kept, total = torch.zeros_like(probabilities), 0.0
    for token in probabilities.argsort(descending=True):
        if total >= sampling.top_p:
            break
        kept[token] = probabilities[token]
        total += float(probabilities[token])
    return kept / kept.sum()


@pytest.mark.parametrize("top_p", [0.5, 0.9, 1.0])
def test_draws_have_the_distribution_of_the_nucleus(top_p):
    sampling = Sampling(temperature=0.7, top_p=top_p, seed=1)
    logits = torch.tensor([2.0, 0.0, 1.0, -1.0, 1.5])
    source = torch.Generator().manual_seed(0)
    drawn = draw_tokens(logits.expand(20_000, -1), sampling, [source] * 20_000)
    found = torch.bincount(drawn, minlength=5) / len(drawn)
    torch.testing.assert_close(found, naive_probabilities(logits, sampling), atol=0.015, rtol=0)


@pytest.mark.parametrize("batch_size", [1, 2, 99])
def test_a_sampled_answer_depends_on_the_seed_and_its_place_and_not_on_the_batch(tiny, batch_size):
    settings = {"max_new_tokens": 12, "sampling": SAMPLING}
    first = generate_answers(*tiny, CHATS * 2, batch_size=4, **settings)
    assert generate_answers(*tiny, CHATS * 2, batch_size=batch_size, **settings) == first
    assert first[: len(CHATS)] != first[len(CHATS) :]
    other = generate_answers(
        *tiny, CHATS * 2, batch_size=4, max_new_tokens=12, sampling=replace(SAMPLING, seed=4)
    )
    assert other != first


def test_an_answer_is_complete_where_the_model_ended_it(tiny):
    model, tokenizer = tiny
    answers = generate_answers(
        model, tokenizer, CHATS * 4, max_new_tokens=12, batch_size=5, sampling=SAMPLING
    )
    shorter = generate_answers(model, tokenizer, CHATS * 4, max_new_tokens=3, batch_size=5, sampling=SAMPLING)
    assert {one.complete for one in answers} == {True, False}
    for one, cut in zip(answers, shorter, strict=True):
        assert cut == one or (not cut.complete and one.text.startswith(cut.text))


@pytest.mark.parametrize("first", [1, 3, 64, 4096])
def test_the_nucleus_is_the_same_however_many_tokens_are_looked_at_first(first):
    logits = (
        torch.randn(7, 500, generator=torch.Generator().manual_seed(2)) * torch.arange(1, 8).unsqueeze(1) / 2
    )
    sampling = Sampling(temperature=1.0, top_p=0.8, seed=0)
    tokens, probabilities = select_nucleus(logits, sampling.top_p, first=first)
    found = torch.zeros_like(logits).scatter(-1, tokens, probabilities)
    for row, original in zip(found, logits, strict=True):
        torch.testing.assert_close(row / row.sum(), naive_probabilities(original, sampling))
