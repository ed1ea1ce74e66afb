import math
from dataclasses import replace

import naive
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from realignment.impact.directional import log_probability_derivatives
from realignment.likelihood import head
from realignment.likelihood.divergence import ReferenceStates, ReferenceTop
from realignment.likelihood.head import Head
from realignment.likelihood.tiled import head_gradient, token_kl, token_likelihoods, token_log_probabilities


@pytest.fixture(scope="module", autouse=True)
def small_blocks():
    """Two rows of a tile at once, two words of the vocabulary in a product: every sweep has some of both."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(head, "BLOCK_BYTES", 2 * 4 * 5)
        patch.setattr(head, "PRODUCT_WIDTH", 2)
        yield


HEADS = {
    "plain": {},
    "soft-capped": {"softcap": 1.5},
    "scaled": {"scale": 0.4},
    "both": {"softcap": 2.0, "scale": 3.0},
}


def states(tokens=7, width=3, vocabulary=5, seed=0, dtype=torch.float64):
    """hidden, weight, target, reference_hidden, reference_weight."""
    torch.manual_seed(seed)
    shapes = [(tokens, width), (vocabulary, width), (tokens, width), (vocabulary, width)]
    hidden, weight, reference_hidden, reference_weight = (torch.randn(shape).to(dtype) for shape in shapes)
    return hidden, weight, torch.randint(vocabulary, (tokens,)), reference_hidden, reference_weight


def sweep(hidden, weight, target, *reference, tile=None, **kind):
    base = ReferenceStates(reference[0], Head(reference[1], **kind)) if reference else None
    return token_likelihoods(hidden, Head(weight, **kind), target, base, tile=tile)


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("tile", [1, 3, 4, 100])
@pytest.mark.parametrize("with_reference", [True, False])
def test_likelihoods_and_their_gradients_match_dense_logits_at_any_tile_size(kind, tile, with_reference):
    hidden, weight, target, *reference = states()
    reference = reference if with_reference else []
    scales = torch.randn(2, len(target), dtype=torch.float64)
    results = []
    for function in (
        lambda *moving: sweep(*moving, target, *reference, tile=tile, **HEADS[kind]),
        lambda *moving: naive.dense_likelihoods(*moving, target, *reference, **HEADS[kind]),
    ):
        leaves = [hidden.clone().requires_grad_(), weight.clone().requires_grad_()]
        actual = function(*leaves)
        total = (scales[0] * actual[0]).sum() + (scales[1] * actual[2]).sum()
        results.append(([value.detach() for value in actual], torch.autograd.grad(total, leaves)))
    torch.testing.assert_close(*results)


@pytest.mark.parametrize(("hidden_moves", "weight_moves"), [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize("kind", HEADS)
def test_likelihoods_pass_gradcheck_whichever_of_states_and_head_is_trained(hidden_moves, weight_moves, kind):
    hidden, weight, target, *reference = states(tokens=4)
    inputs = (hidden.requires_grad_(hidden_moves), weight.requires_grad_(weight_moves))

    def scored(*moving):
        actual = sweep(*moving, target, *reference, tile=3, **HEADS[kind])
        return actual.logprob, actual.kl

    assert torch.autograd.gradcheck(scored, inputs)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10_000), tile=st.integers(1, 9))
def test_the_kl_is_positive_and_zero_with_zero_slope_at_the_reference(seed, tile):
    hidden, weight, target, *reference = states(seed=seed)
    assert (sweep(hidden, weight, target, *reference, tile=tile).kl > 0).all()
    same = sweep(hidden.requires_grad_(), weight, target, hidden, weight, tile=tile)
    (slope,) = torch.autograd.grad(same.kl.sum(), hidden)
    assert float(same.kl.detach().abs().max()) == pytest.approx(0, abs=1e-14)
    torch.testing.assert_close(slope, torch.zeros_like(slope), rtol=0, atol=1e-14)
    torch.testing.assert_close(same.logprob.detach(), same.reference)


def test_the_kl_puts_the_reference_first():
    head, target = torch.eye(2, dtype=torch.float64), torch.tensor([0])
    policy, reference = (torch.tensor([[p, 1 - p]], dtype=torch.float64).log() for p in (0.5, 0.9))
    by_hand = 0.9 * math.log(0.9 / 0.5) + 0.1 * math.log(0.1 / 0.5)
    actual = sweep(policy, head, target, reference, head)
    assert float(actual.kl) == pytest.approx(by_hand, rel=1e-12)
    assert float(actual.reference.exp()) == pytest.approx(0.9, rel=1e-12)


def test_two_tokens_by_hand():
    """h = 1, W = (0, log 3): probabilities ¼ and ¾; ∂ log π(1)/∂h = W₁ − ¾ W₁ = ¼ log 3."""
    hidden = torch.ones(1, 1, dtype=torch.float64, requires_grad=True)
    weight = torch.tensor([[0.0], [math.log(3)]], dtype=torch.float64)
    logprob = token_log_probabilities(hidden, Head(weight), torch.tensor([1]))
    (slope,) = torch.autograd.grad(logprob.sum(), hidden)
    assert float(logprob.detach().exp()) == pytest.approx(0.75)
    assert float(slope) == pytest.approx(math.log(3) / 4)


def test_a_token_without_cotangent_does_not_matter():
    hidden, weight, target, *reference = states()
    slopes = []
    for shift in (0, 7):
        moved = hidden.clone()
        moved[3] += shift
        leaf, scale = moved.requires_grad_(), torch.ones(len(target), dtype=torch.float64)
        scale[3] = 0
        actual = sweep(leaf, weight, target, *reference, tile=2)
        (slope,) = torch.autograd.grad((scale * (actual.kl + actual.logprob)).sum(), leaf)
        assert not slope[3].any()
        slopes.append(slope)
    torch.testing.assert_close(*slopes)


def test_half_precision_models_have_likelihoods_in_float32_close_to_the_exact_ones():
    exact = sweep(*states(tokens=64, vocabulary=200))
    inputs = [t.bfloat16() if t.is_floating_point() else t for t in states(tokens=64, vocabulary=200)]
    half = sweep(*inputs)
    for values, twin in zip(half, exact, strict=True):
        assert values.dtype == torch.float32
        assert float(values.mean()) == pytest.approx(float(twin.mean()), rel=0.02)


def test_the_slope_is_right_where_the_model_is_sure_of_the_target_in_half_precision():
    """1 − q is lost if q is rounded first: bfloat16 has nothing between 0.996 and 1."""
    hidden, weight = torch.tensor([[8.0]]), torch.tensor([[0.0], [1.0]])
    slopes = []
    for dtype in (torch.float32, torch.bfloat16):
        leaf = hidden.to(dtype).requires_grad_()
        logprob = token_log_probabilities(leaf, Head(weight.to(dtype)), torch.tensor([1]))
        slopes.append(float(torch.autograd.grad(logprob.sum(), leaf)[0]))
    assert slopes[1] == pytest.approx(slopes[0], rel=0.01)


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("moves", ["hidden", "weight", "both"])
def test_derivatives_along_directions_are_those_of_forward_mode(kind, moves):
    hidden, weight, target, *_ = states()
    changes = {"hidden": torch.randn_like(hidden), "weight": torch.randn_like(weight)}
    changes = {name: c if moves in (name, "both") else None for name, c in changes.items()}
    head = Head(weight, **HEADS[kind])

    def dense(hidden, weight):
        return replace(head, weight=weight).logits(hidden).log_softmax(-1)[torch.arange(len(target)), target]

    tangents = [
        c if c is not None else torch.zeros_like(x)
        for c, x in zip(changes.values(), (hidden, weight), strict=True)
    ]
    _, expected = torch.func.jvp(dense, (hidden, weight), tuple(tangents))
    actual = log_probability_derivatives(
        hidden, head, target, hidden_change=changes["hidden"], weight_change=changes["weight"], tile=3
    )
    torch.testing.assert_close(actual, expected)


def top_of(reference_hidden, reference_weight, target, k):
    log_p = (reference_hidden @ reference_weight.T).log_softmax(-1)
    values, index = log_p.topk(k)
    return ReferenceTop(index, values, log_p[torch.arange(len(target)), target])


@pytest.mark.parametrize("k", [1, 2, 4])
def test_the_bucketed_kl_and_its_gradients_are_those_of_a_distribution_over_the_buckets(k):
    hidden, weight, target, *reference = states()
    top, scales = top_of(*reference, target, k), torch.rand(2, 7, dtype=torch.float64)
    results = []

    def bucketed(hidden, weight):
        q, p = torch.softmax(hidden @ weight.T, -1), top.logprob.exp()
        mine = q.gather(1, top.index)
        rest_p, rest_q = 1 - p.sum(1), 1 - mine.sum(1)
        kl = (p * (p / mine).log()).sum(1) + rest_p * (rest_p / rest_q).log()
        return q[torch.arange(7), target].log(), kl

    def ours(hidden, weight):
        actual = token_likelihoods(hidden, Head(weight), target, top, tile=3)
        return actual.logprob, actual.kl

    for function in (bucketed, ours):
        leaves = [hidden.clone().requires_grad_(), weight.clone().requires_grad_()]
        values = function(*leaves)
        total = sum((scale * value).sum() for scale, value in zip(scales, values, strict=True))
        results.append(([v.detach() for v in values], torch.autograd.grad(total, leaves)))
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_the_bucketed_kl_is_never_above_the_exact_one_and_equals_it_with_all_tokens(k):
    hidden, weight, target, *reference = states()
    exact = sweep(hidden, weight, target, *reference)
    approximate = token_likelihoods(hidden, Head(weight), target, top_of(*reference, target, k))
    assert (approximate.kl <= exact.kl + 1e-12).all()
    torch.testing.assert_close(approximate.reference, exact.reference)
    if k == len(weight):
        torch.testing.assert_close(approximate.kl, exact.kl)


def kl_and_slope(hidden, weight, reference):
    leaf = hidden.clone().requires_grad_()
    kl = token_kl(leaf, Head(weight), reference)
    return kl.detach(), torch.autograd.grad(kl.sum(), leaf)[0]


@pytest.mark.parametrize("peak", [4, 8, 12, 16])
def test_the_bucketed_kl_keeps_its_digits_in_float32_where_the_model_is_sure(peak):
    """At a peak of 16 the bucket holds 1e-9: one minus the top is rounding, and was a slope of ∞."""
    hidden, weight, target, *_ = states(tokens=200, width=64, vocabulary=1000)
    hidden, weight = peak * hidden, weight / 8
    moved, single = hidden + 0.02 * torch.randn_like(hidden), weight.float()
    top = top_of(hidden, weight, target, 64)
    single_top = ReferenceTop(top.index, top.logprob.float(), top.target.float())
    kl, slope = kl_and_slope(moved.float(), single, single_top)
    exact_kl, exact_slope = kl_and_slope(moved, weight, top)
    torch.testing.assert_close(kl.double(), exact_kl, rtol=1e-3, atol=3e-6)
    assert float((slope.double() - exact_slope).norm() / exact_slope.norm()) < 1e-3
    assert (kl > -1e-7).all()


def test_a_policy_surer_than_float32_can_say_is_drawn_to_the_references_bucket():
    """Top token 1 − 1e-3 under the reference; the policy leaves e⁻⁶⁰ to all others."""
    weight = torch.eye(3, dtype=torch.float64)
    log_p = torch.tensor([[1 - 1e-3, 5e-4, 5e-4]], dtype=torch.float64).log()
    hidden, target = torch.tensor([[60.0, 0.0, 0.0]], dtype=torch.float64), torch.tensor([0])
    top = top_of(log_p, weight, target, 1)
    single_top = ReferenceTop(top.index, top.logprob.float(), top.target.float())
    kl, slope = kl_and_slope(hidden.float(), weight.float(), single_top)
    exact_kl, exact_slope = kl_and_slope(hidden, weight, top)
    torch.testing.assert_close(kl.double(), exact_kl, rtol=1e-3, atol=0)
    torch.testing.assert_close(slope.double(), exact_slope, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("kind", ["exact", "top"])
@pytest.mark.parametrize("gap", [30.0, 60.0, 95.0, 120.0, 1000.0])
def test_a_word_that_the_reference_rules_out_has_a_finite_kl_and_slope_in_float32(gap, kind):
    """eˣ is infinite in float32 from 88 nats on, and the word's probability zero."""
    weight = torch.eye(4, dtype=torch.float64)
    reference = torch.tensor([[0.0, -gap, 0.3, 0.0], [0.0, -gap, -gap, 0.5]], dtype=torch.float64)
    policy, target = torch.tensor([[0.1, 0.0, 0.0, 0.2]] * 2, dtype=torch.float64), torch.tensor([0, 1])

    def reference_in(dtype):
        if kind == "exact":
            return ReferenceStates(reference.to(dtype), Head(weight.to(dtype)))
        top = top_of(reference, weight, target, 3)
        return ReferenceTop(top.index, top.logprob.to(dtype), top.target.to(dtype))

    actual = kl_and_slope(policy.float(), weight.float(), reference_in(torch.float32))
    assert all(torch.isfinite(values).all() for values in actual)
    log_q, log_p = policy.log_softmax(-1), reference.log_softmax(-1)
    exact_kl = (log_p.exp() * (log_p - log_q)).sum(-1)
    exact = (exact_kl, log_q.exp() - log_p.exp())
    if kind == "top":
        exact = kl_and_slope(policy, weight, reference_in(torch.float64))
    torch.testing.assert_close([x.double() for x in actual], list(exact), rtol=1e-5, atol=3e-5)


@pytest.mark.parametrize(("hidden_moves", "weight_moves"), [(True, True), (True, False), (False, True)])
def test_the_kl_alone_is_that_of_the_whole_sweep(hidden_moves, weight_moves):
    hidden, weight, target, *reference = states()
    base, scale = (
        ReferenceStates(reference[0], Head(reference[1])),
        torch.rand(7, dtype=torch.float64),
    )
    results = []
    for function in (
        lambda h, w: token_kl(h, Head(w), base, tile=3),
        lambda h, w: token_likelihoods(h, Head(w), target, base, tile=4).kl,
    ):
        leaves = [hidden.clone().requires_grad_(hidden_moves), weight.clone().requires_grad_(weight_moves)]
        kl = function(*leaves)
        moving = [leaf for leaf in leaves if leaf.requires_grad]
        results.append((kl.detach(), torch.autograd.grad((scale * kl).sum(), moving)))
    torch.testing.assert_close(*results)


def test_the_heads_gradient_keeps_the_small_terms_of_many_tokens_in_half_precision():
    """Added up in bfloat16, a term below 1/256 of the sum so far is lost, and two thousand of them too."""
    hidden, weight, target, *reference = (
        x.bfloat16() if x.is_floating_point() else x for x in states(tokens=2000)
    )
    cotangents = torch.rand(2, len(target))
    base = ReferenceStates(reference[0], Head(reference[1]))
    actual = head_gradient(hidden, Head(weight), target, *cotangents, base, tile=2)
    doubles = [x.double() for x in (hidden, weight)]
    base = ReferenceStates(reference[0].double(), Head(reference[1].double()))
    exact = head_gradient(doubles[0], Head(doubles[1]), target, *cotangents.double(), base)
    assert actual.dtype == torch.bfloat16
    assert float((actual.double() - exact).norm() / exact.norm()) < 0.01


def test_the_kl_close_to_the_reference_keeps_its_digits_in_float32():
    """Of a KL of 1e-6 nats, rounding of the normalisers alone would leave nothing."""
    hidden, weight, *_ = states(tokens=50, width=16, vocabulary=3000, seed=2)
    moved = hidden + 1e-4 * torch.randn_like(hidden)
    exact = token_kl(moved, Head(weight), ReferenceStates(hidden, Head(weight)))
    assert float(exact.mean()) < 1e-6
    single = token_kl(
        moved.float(), Head(weight.float()), ReferenceStates(hidden.float(), Head(weight.float()))
    )
    assert float((single.double() - exact).norm() / exact.norm()) < 0.02
