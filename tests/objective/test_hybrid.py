from dataclasses import replace

import naive
import pytest
import torch
from tiny_decoders import tiny_examples

from realignment.likelihood.packing import pack_pairs
from realignment.objective.hybrid import (
    Objective,
    Treatment,
    count_dispositions,
    error_rates,
    hybrid_loss,
    is_retained,
    loss_coefficients,
    pair_losses,
)

PREFER, CORRECT, SUPPRESS, KEEP, AFFIRM, IMITATE = Treatment
MIXED = [KEEP, PREFER, SUPPRESS, AFFIRM, CORRECT, IMITATE, PREFER, KEEP, CORRECT, AFFIRM, SUPPRESS]


def batch(treatments, *, seed=0):
    """rows, kinds, log π_θ, log π_ref of a batch of random numbers."""
    examples = tiny_examples(treatments)
    rows = pack_pairs([e.tokens for e in examples], pad_id=0)
    generator = torch.Generator().manual_seed(seed)
    policy, reference = -20 * torch.rand(2, len(rows.length), generator=generator, dtype=torch.float64)
    return rows, torch.tensor([int(t) for t in treatments]), policy, reference


def naive_losses(rows, kinds, policy, reference, objective):
    values = []
    for index, kind in enumerate(kinds.tolist()):
        mine = [r for r in range(len(rows.pair)) if int(rows.pair[r]) == index]
        numbers = ([x[r] for r in mine] for x in (policy, reference, rows.length))
        values.append(naive.pair_loss(*numbers, Treatment(kind), objective))
    return torch.stack(values)


@pytest.mark.parametrize("suppress", ["npo", "npo_paper", "apo_down", "ascent"])
@pytest.mark.parametrize("invert", ["dpo", "ipo", "robust"])
@pytest.mark.parametrize(("anchor_weight", "preference_weight"), [(0.0, 1.0), (0.7, 0.4)])
def test_losses_of_a_mixed_batch_are_those_of_each_pair_by_itself(
    invert, suppress, anchor_weight, preference_weight
):
    objective = Objective(
        0.3,
        invert,
        suppress,
        anchor_weight=anchor_weight,
        error_rate=0.15,
        preference_weight=preference_weight,
    )
    rows, kinds, policy, reference = batch(MIXED)
    results = []
    for function in (
        lambda p: pair_losses(p, reference, rows, kinds, objective),
        lambda p: naive_losses(rows, kinds, p, reference, objective),
    ):
        leaf = policy.clone().requires_grad_()
        values = function(leaf)
        (slope,) = torch.autograd.grad((values * torch.arange(1, 12)).sum(), leaf)
        results.append((values.detach(), slope))
    torch.testing.assert_close(*results)


def test_each_pair_can_have_an_error_rate_of_its_own_and_the_objectives_where_it_has_none():
    rows, kinds, policy, reference = batch(MIXED)
    own = [0.3 if place % 3 else None for place in range(len(MIXED))]
    rates = error_rates([replace(e, error_rate=r) for e, r in zip(tiny_examples(MIXED), own, strict=True)])
    values = pair_losses(policy, reference, rows, kinds, Objective(0.3, "robust", error_rate=0.1), rates)
    for place, rate in enumerate(own):
        alone = Objective(0.3, "robust", error_rate=0.1 if rate is None else rate)
        torch.testing.assert_close(values[place], pair_losses(policy, reference, rows, kinds, alone)[place])


@pytest.mark.parametrize("treatment", Treatment)
def test_a_batch_of_one_treatment_alone_works(treatment):
    rows, kinds, policy, reference = batch([treatment] * 3)
    objective = Objective(0.3, anchor_weight=0.1)
    expected = naive_losses(rows, kinds, policy, reference, objective)
    torch.testing.assert_close(pair_losses(policy, reference, rows, kinds, objective), expected)


def test_a_kept_pair_has_its_anchor_alone_and_an_unknown_reference_does_no_harm():
    rows, kinds, policy, reference = batch(MIXED)
    retained = rows.first[kinds == KEEP]
    unknown = reference.clone()
    unknown[retained] = float("nan")
    policy.requires_grad_()
    values = pair_losses(policy, unknown, rows, kinds, Objective(0.3, anchor_weight=0.5))
    (slope,) = torch.autograd.grad(values.sum(), policy)
    torch.testing.assert_close(values[kinds == KEEP], -0.5 * policy[retained] / rows.length[retained])
    assert torch.isfinite(slope).all()
    without = pair_losses(policy, unknown, rows, kinds, Objective(0.3))
    assert without[kinds == KEEP].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("invert", ["dpo", "ipo", "robust"])
def test_an_affirmed_pair_prefers_its_first_response_as_an_inverted_one_does(invert):
    objective = Objective(0.3, invert, anchor_weight=0.5, error_rate=0.1)
    rows, affirmed, policy, reference = batch([AFFIRM] * 4)
    inverted = torch.full_like(affirmed, int(PREFER))
    values = [pair_losses(policy, reference, rows, kinds, objective) for kinds in (affirmed, inverted)]
    torch.testing.assert_close(*values, rtol=0, atol=0)


def test_the_paper_scale_of_npo_is_the_original_without_two_over_beta():
    rows, kinds, policy, reference = batch([SUPPRESS] * 4)
    original, paper = (
        pair_losses(policy, reference, rows, kinds, Objective(0.3, suppress=name))
        for name in ("npo", "npo_paper")
    )
    torch.testing.assert_close(original, paper * 2 / 0.3)


def test_first_points_at_each_pairs_first_response():
    assert batch(MIXED)[0].first.tolist() == [0, 1, 3, 5, 7, 10, 11, 13, 14, 17, 19]


def test_the_hybrid_loss_is_the_weighted_sum_of_means_over_their_own_rows():
    kinds = torch.tensor([int(t) for t in (PREFER, SUPPRESS, KEEP, CORRECT, PREFER, AFFIRM)])
    losses = torch.tensor([1.0, 10.0, 4.0, 30.0, 3.0, 7.0])
    weights = torch.tensor([2.0, 1.0, 1.0, 0.5, 0.0, 2.0])
    objective = Objective(0.3, punish_weight=0.1, kl_weight=5.0, retain_weight=3.0)
    total, terms = hybrid_loss(losses, weights, kinds, torch.tensor([0.1, 0.3]), objective)
    assert {name: float(value) for name, value in terms.items()} == pytest.approx(
        {"invert_loss": 1.0, "punish_loss": 12.5, "retain_loss": 9.0, "retain_kl": 0.2}
    )
    assert float(total) == pytest.approx(1.0 + 0.1 * 12.5 + 3.0 * 9.0 + 5.0 * 0.2)


@pytest.mark.parametrize("cut", range(1, 11))
def test_the_losses_of_the_parts_of_a_batch_add_up_to_the_batchs(cut):
    kinds = torch.tensor([int(t) for t in MIXED])
    objective = Objective(0.3, punish_weight=0.4, kl_weight=2.0, retain_weight=0.7)
    losses, weights = torch.rand(2, 11, generator=torch.Generator().manual_seed(cut), dtype=torch.float64)
    kl, counts = losses[is_retained(kinds)], count_dispositions(kinds)
    whole, terms = hybrid_loss(losses, weights, kinds, kl, objective)
    parts = []
    for mine in (slice(None, cut), slice(cut, None)):
        own = losses[mine][is_retained(kinds[mine])]
        parts.append(hybrid_loss(losses[mine], weights[mine], kinds[mine], own, objective, counts))
    torch.testing.assert_close(sum(total for total, _ in parts), whole)
    for name, value in terms.items():
        torch.testing.assert_close(sum(part[name] for _, part in parts), value)


def test_shares_are_how_much_each_pairs_loss_counts_in_the_hybrid_loss():
    kinds = torch.tensor([int(t) for t in MIXED])
    objective = Objective(0.3, punish_weight=0.4, retain_weight=0.7)
    losses = torch.ones(11, dtype=torch.float64, requires_grad=True)
    total, _ = hybrid_loss(losses, torch.ones(11), kinds, torch.zeros(4), objective)
    (slope,) = torch.autograd.grad(total, losses)
    torch.testing.assert_close(slope, loss_coefficients(kinds, objective, count_dispositions(kinds)).double())


def test_without_retain_weight_the_retained_pairs_own_loss_does_not_count():
    """TRACE: a retained pair is held by its KL and by nothing else."""
    kinds = torch.tensor([int(KEEP), int(AFFIRM), int(PREFER)])
    losses, kl = torch.tensor([4.0, 7.0, 1.0], requires_grad=True), torch.tensor([0.2, 0.8])
    total, terms = hybrid_loss(losses, torch.ones(3), kinds, kl, Objective(0.3, kl_weight=2.0))
    (slope,) = torch.autograd.grad(total, losses)
    assert float(total.detach()) == 1.0 + 2.0 * 0.5
    assert slope.tolist() == [0.0, 0.0, 1.0]
    assert float(terms["retain_loss"].detach()) == 5.5


def test_a_batch_without_conflicts_is_the_kl_alone():
    kinds = torch.tensor([int(KEEP)] * 2)
    total, terms = hybrid_loss(
        torch.zeros(2), torch.ones(2), kinds, torch.tensor([0.4, 0.6]), Objective(0.3, kl_weight=2.0)
    )
    assert float(total) == 1.0
    assert float(terms["invert_loss"]) == float(terms["punish_loss"]) == 0.0


def test_only_retained_pairs_are_no_conflict():
    assert [treatment for treatment in Treatment if not treatment.is_conflict] == [KEEP, AFFIRM]


@pytest.mark.parametrize("suppress", ["npo", "npo_paper", "ascent"])
def test_any_number_of_responses_can_be_suppressed(suppress):
    """NPO and GradDiff forget the violating response of an INVERT pair alone, and both of a PUNISH pair."""
    examples = tiny_examples([PREFER, SUPPRESS, CORRECT])
    rows = pack_pairs([replace(e, treatment=SUPPRESS).tokens for e in examples], pad_id=0)
    kinds = torch.full((3,), int(SUPPRESS))
    generator = torch.Generator().manual_seed(0)
    policy, reference = -20 * torch.rand(2, 7, generator=generator, dtype=torch.float64)
    objective = Objective(0.3, suppress=suppress)
    values = pair_losses(policy, reference, rows, kinds, objective)
    torch.testing.assert_close(values, naive_losses(rows, kinds, policy, reference, objective))


def test_a_batch_can_be_reduced_by_the_mean_over_all_pairs_or_by_the_sum():
    """The mean is DPO's and that of fine-tuning, the sum that of the code which the paper released."""
    kinds = torch.tensor([int(t) for t in (PREFER, SUPPRESS, KEEP, CORRECT, PREFER, AFFIRM)])
    losses = torch.tensor([1.0, 10.0, 4.0, 30.0, 3.0, 7.0])
    weights, kl = torch.tensor([2.0, 1.0, 1.0, 0.5, 0.0, 2.0]), torch.tensor([0.1, 0.3])
    objective = Objective(0.3, punish_weight=0.1, kl_weight=5.0, retain_weight=3.0)
    summed = 2.0 + 0.1 * 25.0 + 3.0 * 18.0 + 5.0 * 0.4
    for reduction, expected in {"sum": summed, "mean": summed / 6}.items():
        reduced = replace(objective, reduction=reduction)
        assert float(hybrid_loss(losses, weights, kinds, kl, reduced)[0]) == pytest.approx(expected)


def test_over_small_batches_a_rare_disposition_counts_as_its_weight_says():
    """Means over a batch's own pairs would give PUNISH, of which every third batch has a pair, a third."""
    kinds = [torch.tensor([int(PREFER), int(kind)]) for kind in (PREFER, PREFER, SUPPRESS)]
    losses = [torch.tensor(values) for values in ([1.0, 2.0], [3.0, 4.0], [5.0, 12.0])]
    objective = Objective(0.3, punish_weight=0.5)
    expected_counts = 2 * torch.tensor([5 / 6, 1 / 6, 0.0])
    totals = [
        hybrid_loss(value, torch.ones(2), kind, torch.zeros(0), objective, expected_counts)[0]
        for value, kind in zip(losses, kinds, strict=True)
    ]
    assert float(sum(totals)) / 3 == pytest.approx((1 + 2 + 3 + 4 + 5) / 5 + 0.5 * 12)


@pytest.mark.parametrize("error_rate", [0.0, 0.2, 0.4])
def test_scores_are_of_labels_without_errors_so_that_the_robust_loss_counts_them_once(error_rate):
    rows, kinds, policy, _ = batch([PREFER])
    robust = Objective(0.3, "robust", error_rate=error_rate)

    def slopes(objective):
        leaf = policy.clone().requires_grad_()
        values = pair_losses(leaf, policy, rows, kinds, objective)
        return torch.autograd.grad(values.sum(), leaf)[0]

    torch.testing.assert_close(slopes(robust.without_label_errors()), slopes(Objective(0.3, "dpo")))
    torch.testing.assert_close(slopes(robust), slopes(Objective(0.3)) / (1 - 2 * error_rate))
