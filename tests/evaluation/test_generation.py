"""Greedy answers, against one prompt at a time, one token at a time."""

import pytest
import torch
from tiny_models import load_model, save_model

from realignment.evaluation.generation import generate
from realignment.tokenization import chat_messages, prompt_text

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
    assert generate(*tiny, CHATS, max_new_tokens=12, batch_size=batch_size) == expected


def test_a_repetition_penalty_of_one_is_plain_greedy_decoding(tiny, expected):
    answers = generate(*tiny, CHATS, max_new_tokens=12, batch_size=5, repetition_penalty=1.0)
    assert answers == expected


@pytest.mark.parametrize("batch_size", [1, 5])
def test_a_repetition_penalty_divides_the_logits_of_tokens_that_occurred(tiny, expected, batch_size):
    answers = generate(*tiny, CHATS, max_new_tokens=12, batch_size=batch_size, repetition_penalty=3.0)
    assert answers == [naive_answer(*tiny, chat, 12, penalty=3.0) for chat in CHATS]
    assert answers != expected


@pytest.mark.parametrize("order", [[4, 3, 2, 1, 0], [2, 0, 4, 1, 3]])
def test_answers_come_in_the_order_of_the_prompts(tiny, expected, order):
    answers = generate(*tiny, [CHATS[i] for i in order], max_new_tokens=12, batch_size=2)
    assert answers == [expected[i] for i in order]


@pytest.mark.parametrize("limit", [1, 3])
def test_an_answer_is_cut_at_the_limit(tiny, expected, limit):
    answers = generate(*tiny, CHATS, max_new_tokens=limit, batch_size=5)
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
        generate(*tiny, CHATS[:1], max_new_tokens=1, batch_size=1)
        with torch.no_grad():
            head[tokenizer.eos_token_id] = hidden[0] * 1e3  # now the first token is the end
        assert generate(*tiny, CHATS[:1], max_new_tokens=12, batch_size=1) == [""]
        assert len(hidden) == 2
    finally:
        hook.remove()
        with torch.no_grad():
            head[tokenizer.eos_token_id] = before


def test_no_prompts_are_no_answers(tiny):
    assert generate(*tiny, [], max_new_tokens=4, batch_size=2) == []
