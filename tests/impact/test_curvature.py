import pytest
import torch
from impact_cases import EXAMPLES, MODELS, gold
from tiny_decoders import WIDTH, tiny_model, with_lora
from torch import nn
from transformers.models.gemma2.modeling_gemma2 import Gemma2TextScaledWordEmbedding

from realignment.impact import curvature
from realignment.impact.curvature import _Fisher, head_fisher_diagonal, precondition, sample_targets
from realignment.likelihood.backbone import output_head
from realignment.likelihood.head import Head
from realignment.likelihood.log_probs import response_hidden_states
from realignment.likelihood.packing import pack_pairs
from realignment.likelihood.tokenization import TokenizedPair

ROWS = pack_pairs([e.tokens for e in EXAMPLES], pad_id=0)


def solve(model, direction, curvature, *, damping=0.1, seed=3):
    return precondition(model, [ROWS], direction, curvature=curvature, damping=damping, seed=seed)


def token_gradients(model, *, seed=3):
    """∂ log π(sampled target)/∂θ of every response token by itself: slow, and obviously right."""
    head = output_head(model)
    with torch.no_grad():
        states = response_hidden_states(model, ROWS)
        target = sample_targets(states, head, torch.Generator().manual_seed(seed))
    logits = head.logits(response_hidden_states(model, ROWS))
    logprobs = logits.log_softmax(-1)[torch.arange(len(target)), target]
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    parameters = [p for p in model.parameters() if p.requires_grad]
    return [
        dict(zip(names, torch.autograd.grad(value, parameters, retain_graph=True), strict=True))
        for value in logprobs
    ]


def relative(actual, expected):
    return float((actual - expected).norm() / expected.norm())


def test_identity_leaves_the_gold_gradient_as_it_is():
    model = with_lora(tiny_model(), moved=True)
    direction = gold(model)
    assert solve(model, direction, "identity") is direction


def test_the_diagonal_of_the_head_is_the_sum_of_squared_token_gradients():
    torch.manual_seed(0)
    hidden, weight = torch.randn(7, 3, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)
    target, expected = torch.randint(5, (7,)), torch.zeros(5, 3, dtype=torch.float64)
    for state, token in zip(hidden, target, strict=True):
        leaf = weight.clone().requires_grad_()
        (gradient,) = torch.autograd.grad((leaf @ state).log_softmax(-1)[token], leaf)
        expected += gradient**2
    torch.testing.assert_close(head_fisher_diagonal(hidden, Head(weight), target, tile=2), expected)


def test_the_last_layers_diagonal_is_the_sum_of_squared_token_gradients():
    """Behind the last attention each token has its own x and δ, so nothing is approximated."""
    model = with_lora(tiny_model(), moved=True, targets=["down_proj"])
    direction = {name: torch.ones_like(p) for name, p in model.named_parameters() if p.requires_grad}
    solved, gradients = solve(model, direction, "diagonal_fisher"), token_gradients(model)
    for name in (n for n in direction if "layers.1" in n):
        # The prompt's last token predicts the first token of every response: those gradients meet there.
        places: dict[int, torch.Tensor] = {}
        for place, gradient in zip(ROWS.source.tolist(), gradients, strict=True):
            places[place] = places.get(place, 0) + gradient[name]
        fisher = sum(value**2 for value in places.values())
        torch.testing.assert_close(solved[name], 1 / (fisher + 0.1 * fisher.mean()))


@pytest.mark.parametrize("family", ["qwen3", "gemma3"])
def test_the_diagonal_of_a_norm_of_heads_is_the_sum_of_squared_token_gradients(family):
    """All heads share its weight, so a token's gradient is the sum over its heads."""
    model = tiny_model(family).requires_grad_(False)
    layer = model.model.layers[-1].self_attn.q_norm.requires_grad_(True)
    (name,) = (n for n, p in model.named_parameters() if p.requires_grad)
    rows = pack_pairs([TokenizedPair([5, 6, 9], ([7],)), TokenizedPair([4, 8], ([3],))], pad_id=0)
    direction, expected = {name: torch.ones_like(layer.weight)}, torch.zeros_like(layer.weight)
    solved = precondition(model, [rows], direction, curvature="diagonal_fisher", damping=0.1, seed=3)[name]
    head = output_head(model)
    states = response_hidden_states(model, rows)
    target = sample_targets(states.detach(), head, torch.Generator().manual_seed(3))
    # One response token for each pair, and only the query of the token that predicts it is read.
    for value in head.logits(states).log_softmax(-1)[torch.arange(2), target]:
        expected += torch.autograd.grad(value, layer.weight, retain_graph=True)[0] ** 2
    torch.testing.assert_close(solved, 1 / (expected + 0.1 * expected.mean()), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("widest", [4096, WIDTH - 1, 2])
def test_kfac_of_the_last_layer_is_the_kronecker_product_of_its_factors(widest, monkeypatch):
    """Of B, WIDTH × 3: both factors are matrices, the outputs' is its diagonal, both are."""
    monkeypatch.setattr(curvature, "MAX_FACTOR_WIDTH", widest)
    model = with_lora(tiny_model(), moved=True, targets=["down_proj"])
    direction = gold(model)
    name = next(n for n in direction if "layers.1" in n and "lora_B" in n)
    captured = {}
    module = model.get_submodule(name.removesuffix(".weight"))
    handle = module.register_forward_hook(lambda m, x, y: captured.update(x=x[0].detach(), y=y))
    states = response_hidden_states(model, ROWS)
    handle.remove()
    head = output_head(model)
    target = sample_targets(states.detach(), head, torch.Generator().manual_seed(3))
    logprobs = head.logits(states).log_softmax(-1)[torch.arange(len(target)), target]
    (delta,) = torch.autograd.grad(logprobs.sum(), captured["y"])
    x, d = captured["x"].flatten(0, 1), delta.flatten(0, 1)
    reached = d.any(-1)
    assert 0 < reached.sum() < len(d), "the last token of a response predicts nothing"
    inputs, outputs = x[reached].T @ x[reached] / reached.sum(), d.T @ d
    inputs, outputs = (f if len(f) <= widest else f.diagonal().diag() for f in (inputs, outputs))
    damped = [f + 0.1**0.5 * f.diagonal().mean() * torch.eye(len(f)) for f in (inputs, outputs)]
    full = torch.kron(damped[1].contiguous(), damped[0].contiguous())
    expected = torch.linalg.solve(full, direction[name].flatten()).view_as(direction[name])
    torch.testing.assert_close(solve(model, direction, "kfac")[name], expected)


@pytest.mark.parametrize("kind", ["diagonal_fisher", "kfac"])
def test_curvature_is_estimated_only_where_the_gold_gradient_is_not_zero(kind, monkeypatch):
    """A fresh LoRA has no gradient in A, and half of all factors would be of it."""
    estimates = []
    monkeypatch.setattr(
        curvature, "_Fisher", lambda **options: estimates.append(_Fisher(**options)) or estimates[0]
    )
    model = with_lora(tiny_model())
    direction = gold(model)
    solved = solve(model, direction, kind)
    estimated = {*estimates[0].diagonals, *estimates[0].inputs}
    assert estimated == {name for name, gradient in direction.items() if gradient.any()}
    assert all("lora_B" in name for name in estimated)
    for name in direction.keys() - estimated:
        assert not solved[name].any()


def test_factors_and_diagonals_are_of_one_scale():
    """Where every input is ±1, a weight and its bias have the same Fisher information."""
    torch.manual_seed(0)
    layer = nn.Linear(1, 1).double()
    x, delta = torch.tensor([[[1.0], [-1.0], [1.0]]]).double(), torch.randn(1, 3, 1).double()
    fisher = _Fisher(has_factors=True, names={"layer.weight", "layer.bias"})
    fisher.accumulate("layer", layer, x, delta)
    weight, bias = (
        fisher.solve(name, torch.ones(shape).double(), 1e-9)
        for name, shape in (("layer.weight", (1, 1)), ("layer.bias", (1,)))
    )
    torch.testing.assert_close(weight[0], bias, rtol=1e-4, atol=0)


@pytest.mark.parametrize("factors", [True, False])
def test_padding_is_no_sample(factors):
    torch.manual_seed(0)
    layer, gradient = nn.Linear(3, 2).double(), torch.randn(2, 3).double()
    x, delta = torch.randn(1, 5, 3).double(), torch.randn(1, 5, 2).double()
    delta[0, 3:] = 0
    solved = []
    for end in (3, 5):
        fisher = _Fisher(has_factors=factors, names={"layer.weight"})
        fisher.accumulate("layer", layer, x[:, :end], delta[:, :end])
        solved.append(fisher.solve("layer.weight", gradient, 0.1))
    torch.testing.assert_close(*solved)


def test_the_diagonal_of_a_scaled_embedding_is_the_sum_of_squared_token_gradients():
    torch.manual_seed(0)
    layer = Gemma2TextScaledWordEmbedding(5, 3, padding_idx=2, embed_scale=4.0).double()
    tokens, delta = torch.tensor([[0, 1, 1, 2]]), torch.randn(1, 4, 3).double()
    fisher, expected = _Fisher(has_factors=False, names={"embedding.weight"}), torch.zeros(5, 3).double()
    fisher.accumulate("embedding", layer, tokens, delta)
    for place in range(4):
        (gradient,) = torch.autograd.grad(layer(tokens[:, place]), layer.weight, delta[:, place])
        expected += gradient**2
    torch.testing.assert_close(fisher.diagonals["embedding.weight"], expected)


@pytest.mark.parametrize("curvature", ["diagonal_fisher", "kfac"])
@pytest.mark.parametrize("name", MODELS)
def test_every_model_has_a_preconditioned_gradient_that_still_descends(name, curvature):
    """(F + λ)⁻¹ is positive definite, so the inner product with the gradient itself is positive."""
    model = MODELS[name]()
    direction = gold(model)
    solved = solve(model, direction, curvature)
    assert solved.keys() == direction.keys()
    for key, gradient in direction.items():
        assert torch.isfinite(solved[key]).all(), key
        if gradient.any():
            assert float((solved[key] * gradient).sum()) > 0, key


@pytest.mark.parametrize("curvature", ["diagonal_fisher", "kfac"])
def test_much_damping_leaves_the_direction_of_every_matrix(curvature):
    model = with_lora(tiny_model(), moved=True)
    direction = gold(model)
    solved = solve(model, direction, curvature, damping=1e12)
    for name, gradient in direction.items():
        assert relative(solved[name] / solved[name].norm(), gradient / gradient.norm()) < 1e-4


def test_one_seed_gives_one_result_and_another_seed_another():
    model = with_lora(tiny_model(), moved=True)
    direction = gold(model)
    first, again, other = (solve(model, direction, "kfac", seed=seed) for seed in (1, 1, 2))
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_targets_are_drawn_from_the_models_own_distribution():
    hidden = torch.zeros(40_000, 1)
    weight = torch.zeros(3, 1)
    head = Head(weight, None, 1.0)
    drawn = sample_targets(hidden, head, torch.Generator().manual_seed(0), tile=1000)
    shares = torch.bincount(drawn, minlength=3) / len(drawn)
    torch.testing.assert_close(shares, torch.full((3,), 1 / 3), rtol=0, atol=0.01)
