"""What is read once and shared is what a full forward pass per request reads."""

import random

import pytest
import torch
from tiny_decoders import DECODERS, SIZES, VOCABULARY, tiny_model
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    GptOssConfig,
    GptOssForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
)

from realignment.likelihood.backbone import backbone
from realignment.likelihood.tokenization import TokenizedPair
from realignment.oracles import branching
from realignment.oracles.branching import BRANCHING
from realignment.oracles.forward import can_branch, read_in_one_row, read_padded, read_prefix
from realignment.oracles.reading import Reader, find_shared_prefix

# Gemma 2's and 3's norms compute in float32 in any dtype.
EXACT = {"gemma2": 1e-6, "gemma3": 1e-6}


def naive_states(model, requests):
    """One full forward pass per request: slow, and obviously right."""
    with torch.no_grad():
        full = [backbone(model)(input_ids=torch.tensor([ids]), use_cache=False) for ids in requests]
    return torch.stack([output.last_hidden_state[0, -1] for output in full])


@torch.inference_mode()
def read(model, requests, prompts, *, budget):
    """The states in the order of the requests, and the reader."""
    reader, states = Reader(model, budget=budget), {}
    for batch, hidden_states in reader(requests, prompts):
        assert not states.keys() & batch, "a request is read once"
        states |= dict(zip(batch, hidden_states, strict=True))
    return torch.stack([states[index] for index in range(len(requests))]), reader


def draw_requests(draw):
    """A policy (or none), some prompts (or an empty one), responses that may be empty, equal or continued."""

    def tokens(least, most):
        return [draw.randrange(3, 3 + draw.choice([2, 30])) for _ in range(draw.randint(least, most))]

    policy, requests, prompts = tokens(0, 30), [], []
    for number in range(draw.randint(1, 4)):
        prompt, response = tokens(0, 8), tokens(0, 12)
        responses = [response, *(tokens(0, 12) for _ in range(draw.randint(0, 2)))]
        responses += draw.choice([[], [response], [response + tokens(1, 4)]])
        ends = draw.choice([[4], [4, 5]])
        requests += [policy + prompt + answer + ends for answer in responses]
        prompts += [number] * len(responses)
    return requests, prompts


@pytest.mark.parametrize("family", DECODERS)
def test_states_are_those_of_full_forward_passes_whatever_the_shapes(family):
    model, draw = tiny_model(family), random.Random(family)
    for _ in range(12):
        requests, prompts = draw_requests(draw)
        hidden_states, _ = read(model, requests, prompts, budget=draw.choice([1, 30, 10_000]))
        exact = EXACT.get(family, 1e-12)
        torch.testing.assert_close(hidden_states, naive_states(model, requests), rtol=exact, atol=10 * exact)


@pytest.mark.parametrize("family", ["gemma2", "gemma3", "mistral_window"])
def test_queries_whose_scores_are_taken_some_at_a_time_read_the_same(family, monkeypatch):
    """Where no fused kernel serves: soft-capping, and windows shorter than the policy."""
    monkeypatch.setattr(branching, "_SCORES_CPU", 300)
    model, draw = tiny_model(family), random.Random(family)
    assert can_branch(model), "else padded rows would be read"
    for _ in range(4):
        requests, prompts = draw_requests(draw)
        hidden_states, _ = read(model, requests, prompts, budget=10_000)
        exact = EXACT.get(family, 1e-12)
        torch.testing.assert_close(hidden_states, naive_states(model, requests), rtol=exact, atol=10 * exact)


@pytest.mark.parametrize("family", DECODERS)
def test_padded_rows_read_the_same(family):
    model, draw = tiny_model(family), random.Random(family)
    start, *rests = ([draw.randrange(3, VOCABULARY) for _ in range(n)] for n in (15, 3, 5, 9, 1))
    branches = [TokenizedPair(rests[0], (rests[1], rests[2])), TokenizedPair([], (rests[3],))]
    with torch.inference_mode():
        states = [how(model, branches, read_prefix(model, start)) for how in (read_padded, read_in_one_row)]
    exact = EXACT.get(family, 1e-12)
    torch.testing.assert_close(*states, rtol=exact, atol=10 * exact)


@pytest.mark.parametrize("family", DECODERS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_every_decoder_can_read_in_one_row_in_every_precision(family, dtype):
    model = tiny_model(family, dtype=dtype)
    attention = model.config._attn_implementation
    assert can_branch(model)
    assert model.config._attn_implementation == attention != BRANCHING


def test_a_policy_and_its_prompts_are_read_once():
    model = tiny_model("llama")
    policy, requests, prompts = list(range(3, 23)), [], []
    for number in (30, 31, 32):
        requests += [policy + [number] * 5 + [answer] * 4 for answer in (4, 5, 6)]
        prompts += [number] * 3
    hidden_states, reader = read(model, requests, prompts, budget=1000)
    assert reader.tokens == 20 + 3 * (5 + 3 * 4)
    torch.testing.assert_close(hidden_states, naive_states(model, requests), rtol=1e-12, atol=1e-12)


def test_a_batch_keeps_to_the_budget():
    model = tiny_model("llama")
    sizes = []
    model.model.register_forward_pre_hook(
        lambda module, args, kwargs: sizes.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    reader = Reader(model, budget=20)
    sizes.clear()
    requests = [[9] * 30 + [prompt] * 3 + [answer] * 4 for prompt in (4, 5) for answer in range(6, 16)]
    with torch.inference_mode():
        list(reader(requests, [request[30] for request in requests]))
    assert sizes[0] == 30
    assert max(sizes[1:]) <= 20


@pytest.mark.parametrize("family", ["bloom", "gpt_oss"])
def test_models_whose_attention_knows_more_are_read_in_padded_rows(family, caplog):
    torch.manual_seed(0)
    if family == "bloom":  # ALiBi
        model = BloomForCausalLM(BloomConfig(vocab_size=VOCABULARY, hidden_size=16, n_layer=2, n_head=4))
    else:  # sinks
        experts = {"num_local_experts": 4, "num_experts_per_tok": 2}
        model = GptOssForCausalLM(GptOssConfig(**SIZES, **experts, head_dim=4, sliding_window=12))
    requests, prompts = draw_requests(random.Random(3))
    hidden_states, _ = read(model.eval(), requests, prompts, budget=40)
    assert "cannot read requests in one row" in caplog.text
    torch.testing.assert_close(hidden_states, naive_states(model, requests), rtol=1e-4, atol=1e-5)


def test_a_mixture_of_experts_is_read_in_one_row():
    torch.manual_seed(0)
    model = MixtralForCausalLM(MixtralConfig(**SIZES, num_local_experts=4)).eval()
    requests, prompts = draw_requests(random.Random(3))
    hidden_states, _ = read(model, requests, prompts, budget=40)
    assert can_branch(model)
    torch.testing.assert_close(hidden_states, naive_states(model, requests), rtol=1e-4, atol=1e-5)


def test_the_shared_prefix_leaves_each_request_a_token():
    assert find_shared_prefix([[1, 2, 3], [1, 2, 4], [1, 2, 3, 5]]) == [1, 2]
    assert find_shared_prefix([[1, 2], [1, 2]]) == [1]
    assert find_shared_prefix([[1], [2]]) == []
    assert find_shared_prefix([[1, 2, 3], [1, 2]]) == [1]
    assert find_shared_prefix([]) == []
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        requests = [torch.randint(VOCABULARY, (4,), generator=generator).remainder(2).tolist() for _ in "abc"]
        shared = find_shared_prefix(requests)
        assert all(request[: len(shared)] == shared for request in requests)
        assert len(shared) == 3 or len({request[len(shared)] for request in requests}) > 1
