import math

import pytest
import torch

from realignment.objective.losses import (
    anchor_loss,
    apo_down_loss,
    correction_loss,
    dpo_loss,
    ipo_loss,
    npo_loss,
    robust_loss,
)

BETA = 0.3
ZERO = torch.zeros(3, dtype=torch.float64)
LENGTHS = {"preferred_length": torch.tensor([4, 9, 1]), "dispreferred_length": torch.tensor([7, 2, 3])}
LOSSES = {
    "dpo": (2, lambda a, b: dpo_loss(a, b, beta=BETA)),
    "ipo": (2, lambda a, b: ipo_loss(a, b, beta=BETA, **LENGTHS)),
    "robust": (2, lambda a, b: robust_loss(a, b, beta=BETA, error_rate=0.2)),
    "npo": (1, lambda a: npo_loss(a, beta=BETA)),
    "correction": (3, lambda a, b, c: correction_loss(a, b, c, beta=BETA)),
    "apo_down": (2, lambda a, b: apo_down_loss(a, b, beta=BETA)),
    "anchor": (1, lambda a: anchor_loss(a, torch.tensor([4, 9, 1]))),
}
AT_THE_REFERENCE = {
    "dpo": math.log(2),
    "ipo": 1 / (4 * BETA**2),
    "robust": math.log(2),
    "npo": 2 * math.log(2) / BETA,
    "correction": 2 * math.log(2),
    "apo_down": 1.0,
    "anchor": 0.0,
}


def draws(count, *, seed=0, scale=3.0):
    generator = torch.Generator().manual_seed(seed)
    shape = (count, 3)
    return (scale * torch.randn(shape, generator=generator, dtype=torch.float64)).unbind(0)


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_has_the_value_its_docstring_states_at_the_reference(name):
    count, loss = LOSSES[name]
    expected = torch.full_like(ZERO, AT_THE_REFERENCE[name])
    torch.testing.assert_close(loss(*[ZERO] * count), expected)


@pytest.mark.parametrize("name", LOSSES)
def test_the_gradient_of_every_loss_matches_finite_differences(name):
    count, loss = LOSSES[name]
    assert torch.autograd.gradcheck(loss, [value.requires_grad_() for value in draws(count)])


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_gives_one_number_per_pair_that_depends_on_that_pair_alone(name):
    count, loss = LOSSES[name]
    values = draws(count)
    changed = [torch.cat([value[:2], value[2:] + 5]) for value in values]
    torch.testing.assert_close(loss(*changed)[:2], loss(*values)[:2], rtol=0, atol=0)
    assert loss(*values).shape == (3,)


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_is_finite_with_a_finite_gradient_a_thousand_nats_away(name):
    count, loss = LOSSES[name]
    for sign in (1, -1):
        values = [torch.full_like(ZERO, sign * 1000.0 * (-1) ** i).requires_grad_() for i in range(count)]
        result = loss(*values)
        gradients = torch.autograd.grad(result.sum(), values)
        assert torch.isfinite(torch.stack([result, *gradients])).all()


def test_dpo_differs_between_the_two_orders_by_beta_times_the_margin():
    a, b = draws(2)
    torch.testing.assert_close(dpo_loss(a, b, beta=BETA) - dpo_loss(b, a, beta=BETA), -BETA * (a - b))


def test_dpo_falls_as_the_preferred_response_rises_and_rises_with_the_other():
    a, b = (value.requires_grad_() for value in draws(2))
    up, down = torch.autograd.grad(dpo_loss(a, b, beta=BETA).sum(), (a, b))
    assert (up < 0).all()
    torch.testing.assert_close(up, -down)


def test_ipo_is_zero_where_the_margin_per_token_is_one_over_two_beta():
    b = draws(1)[0]
    target = (b / LENGTHS["dispreferred_length"] + 1 / (2 * BETA)) * LENGTHS["preferred_length"]
    torch.testing.assert_close(ipo_loss(target, b, beta=BETA, **LENGTHS), ZERO)


def test_robust_without_errors_is_dpo():
    a, b = draws(2)
    torch.testing.assert_close(robust_loss(a, b, beta=BETA, error_rate=0.0), dpo_loss(a, b, beta=BETA))


def test_robust_under_random_flips_is_dpo_on_average():
    a, b = draws(2)
    rate = torch.tensor([0.1, 0.25, 0.45], dtype=torch.float64)
    right, flipped = (robust_loss(*order, beta=BETA, error_rate=rate) for order in ((a, b), (b, a)))
    torch.testing.assert_close((1 - rate) * right + rate * flipped, dpo_loss(a, b, beta=BETA))


def test_npo_is_gradient_ascent_as_beta_goes_to_zero():
    value = draws(1)[0].requires_grad_()
    (slope,) = torch.autograd.grad(npo_loss(value, beta=1e-9).sum(), value)
    torch.testing.assert_close(slope, torch.ones_like(slope))


def test_npo_pushes_ever_more_gently_below_the_reference():
    value = torch.tensor([5.0, 0.0, -5.0, -50.0], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(npo_loss(value, beta=BETA).sum(), value)
    assert (slope > 0).all()
    assert (slope.diff() < 0).all()
    torch.testing.assert_close(slope[1], torch.tensor(1.0, dtype=torch.float64))


def test_correction_does_not_care_which_violating_response_was_chosen():
    a, b, c = draws(3)
    torch.testing.assert_close(correction_loss(a, b, c, beta=BETA), correction_loss(a, c, b, beta=BETA))


def test_apo_down_lies_between_zero_and_two_and_lowers_the_better_response_at_the_reference():
    a, b = draws(2, scale=10)
    assert ((apo_down_loss(a, b, beta=BETA) > 0) & (apo_down_loss(a, b, beta=BETA) < 2)).all()
    better, worse = (ZERO.clone().requires_grad_() for _ in range(2))
    slopes = torch.autograd.grad(apo_down_loss(better, worse, beta=BETA).sum(), (better, worse))
    torch.testing.assert_close(slopes, (ZERO, ZERO + BETA / 4))


def test_anchor_is_nats_per_token():
    value = anchor_loss(torch.tensor([-12.0, -3.0]), torch.tensor([6, 1]))
    torch.testing.assert_close(value, torch.tensor([2.0, 3.0]))
