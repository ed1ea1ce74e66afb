"""The sample is drawn as said, and its intervals hold the truth of known populations as often as they say."""

import numpy as np
import pandas as pd
import pytest

from realignment.audit.sampling import Tally, allocate, draw_sample, estimate, tally
from realignment.audit.scores import Dispositions
from realignment.records import DataError

KINDS = ("INVERT", "PUNISH", "RETAIN")


def population(sizes, wrong, *, seed=0):
    """Pairs by disposition, of which a share is something else in truth."""
    rng = np.random.default_rng(seed)
    parts = []
    for disposition, n in sizes.items():
        others = [kind for kind in KINDS if kind != disposition]
        true = np.where(rng.random(n) < wrong.get(disposition, 1.0), rng.choice(others, n), disposition)
        parts.append(pd.DataFrame({"disposition": disposition, "true_disposition": true}))
    table = pd.concat(parts, ignore_index=True)
    return table.assign(pair_id=[f"p{i}" for i in range(len(table))])


@pytest.mark.parametrize(
    ("sizes", "size", "quota"),
    [
        ({"a": 100, "b": 100}, 50, {"a": 25, "b": 25}),
        ({"a": 10, "b": 100, "c": 100}, 90, {"a": 10, "b": 40, "c": 40}),
        ({"a": 3, "b": 4}, 50, {"a": 3, "b": 4}),
        ({"a": 50, "b": 50, "c": 50}, 100, {"a": 33, "b": 33, "c": 34}),
        ({}, 100, {}),
    ],
)
def test_strata_get_equal_shares_and_what_one_lacks_the_others_get(sizes, size, quota):
    assert allocate(sizes, size) == quota


def test_every_pair_of_a_disposition_is_drawn_with_the_probability_that_is_recorded():
    pairs = population({"INVERT": 40, "PUNISH": 10, "RETAIN": 100}, {}).assign(n=0)
    counts, draws = pd.Series(0, index=pairs["pair_id"]), 500
    for seed in range(draws):
        sample = draw_sample(pairs, size=30, seed=seed)
        counts[sample["pair_id"]] += 1
    recorded = sample.groupby("stratum")["inclusion_probability"].first()
    assert recorded.to_dict() == {"INVERT": 10 / 40, "PUNISH": 1.0, "RETAIN": 10 / 100}
    for disposition, probability in recorded.items():
        drawn = counts[pairs.loc[pairs["disposition"] == disposition, "pair_id"]] / draws
        spread = 4.5 * np.sqrt(probability * (1 - probability) / draws)
        assert np.abs(drawn - probability).max() <= spread


def test_the_probabilities_add_up_to_the_sample_and_their_inverses_to_the_population():
    pairs = population({"INVERT": 40, "PUNISH": 10, "RETAIN": 100, "REVIEW": 7}, {})
    sample = draw_sample(pairs, size=40, seed=3)
    assert (1 / sample["inclusion_probability"]).sum() == pytest.approx(len(pairs))
    assert sample["pair_id"].is_unique
    sizes = sample.groupby("stratum")["stratum_size"].first().to_dict()
    assert sizes == {"INVERT": 40, "PUNISH": 10, "RETAIN": 100, "REVIEW": 7}


def test_a_draw_from_slightly_other_splits_shares_nearly_all_its_pairs():
    """People's verdicts on the first sample stay of use where a better oracle moves a few pairs."""
    pairs = population({"INVERT": 300, "PUNISH": 300, "RETAIN": 300}, {})
    moved = pairs.assign(disposition=pairs["disposition"].where(pairs.index % 20 > 0, "REVIEW"))
    first, second = (set(draw_sample(t, size=90, seed=1)["pair_id"]) for t in (pairs, moved))
    unmoved = {p for p in first if p in set(moved.loc[moved["disposition"] != "REVIEW", "pair_id"])}
    assert len(unmoved & second) >= 0.7 * len(unmoved)
    assert set(draw_sample(pairs, size=90, seed=1)["pair_id"]) == first


def test_only_pairs_of_known_truth_are_drawn_and_stand_for_their_whole_disposition():
    pairs = population({"INVERT": 50, "RETAIN": 50}, {})
    sample = draw_sample(pairs.assign(eligible=pairs.index % 5 == 0), size=20, seed=0)
    assert len(sample) == 20
    assert sample["inclusion_probability"].unique().tolist() == [10 / 50]
    assert "eligible" not in sample


def test_without_any_truth_there_is_nothing_to_audit():
    pairs = population({"INVERT": 5}, {}).assign(eligible=False)
    with pytest.raises(DataError, match=r"of 5 pairs 0 have a known truth.*`audit.truth: people`"):
        draw_sample(pairs, size=10, seed=0)


def share_right(totals):
    return totals[..., 0].sum(axis=-1) / totals.sum(axis=(-2, -1))


def make_tally(*rows, sizes):
    return Tally(np.array(sizes), np.array(rows), np.full((len(rows), 2), 0.5))


def test_the_estimate_weighs_every_stratum_by_its_size():
    counts = make_tally([9, 1], [5, 5], sizes=[100, 900])
    found = estimate(counts, share_right, np.random.default_rng(0))
    assert found.value == pytest.approx(0.1 * 0.9 + 0.9 * 0.5)
    assert found.low < found.value < found.high
    assert found.n == 20


def test_a_stratum_that_was_audited_in_full_is_known_for_certain():
    found = estimate(make_tally([7, 3], sizes=[10]), share_right, np.random.default_rng(0))
    assert (found.value, found.low, found.high) == (0.7, 0.7, 0.7)


def test_no_error_in_the_sample_is_not_taken_for_no_error_at_all():
    """As a single binomial share has it: Jeffreys' interval of 30 right of 30 begins near 0.92."""
    found = estimate(make_tally([30, 0], sizes=[100_000]), share_right, np.random.default_rng(0))
    assert found.value == found.high == 1.0
    assert found.low == pytest.approx(0.920, abs=0.01)


def test_a_figure_that_is_not_defined_has_no_interval():
    counts = make_tally([0, 4], sizes=[9])
    found = estimate(counts, lambda t: np.full(t.shape[:-2], np.nan), np.random.default_rng(0))
    assert np.isnan([found.value, found.low, found.high]).all()


def test_completed_populations_have_the_sizes_of_the_strata_and_all_that_was_seen():
    counts = make_tally([9, 1], [5, 5], sizes=[100, 900])
    completed = counts.completions(np.random.default_rng(0), draws=50)
    assert completed.shape == (50, 2, 2)
    assert (completed.sum(axis=-1) == [100, 900]).all()
    assert (completed >= counts.counts).all()


def test_a_tally_counts_cells_by_stratum_and_leaves_out_what_nobody_audited():
    everything = pd.DataFrame({"stratum": list("aaabbc")})
    audited = pd.DataFrame({"stratum": list("aab"), "right": [True, False, True]})
    keys, counts = tally(
        everything, audited, ["stratum"], "right", dict.fromkeys((True, False), lambda _: 0.5)
    )
    assert keys == [("a",), ("b",)]
    assert counts.sizes.tolist() == [3, 2]
    assert counts.counts.tolist() == [[1, 1], [1, 0]]


SCENARIOS = {
    "a good oracle": ({"INVERT": 600, "PUNISH": 200, "RETAIN": 2000}, dict.fromkeys(KINDS, 0.02)),
    "a bad oracle": (
        {"INVERT": 5000, "PUNISH": 2000, "RETAIN": 20_000},
        {"INVERT": 0.3, "PUNISH": 0.4, "RETAIN": 0.2},
    ),
    "few pairs, nearly all audited": ({"INVERT": 60, "PUNISH": 40, "RETAIN": 90}, dict.fromkeys(KINDS, 0.2)),
    "with pairs in review": (
        {"INVERT": 600, "PUNISH": 200, "RETAIN": 2000, "REVIEW": 100},
        {"INVERT": 0.1, "PUNISH": 0.2, "RETAIN": 0.05},
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SCENARIOS)
def test_intervals_hold_the_figures_of_a_known_population_in_95_of_100_samples(name):
    """At least 88 of 100 for every figure, 93 for all together: 120 samples of 100 pairs each."""
    everything = population(*SCENARIOS[name])
    whole = Dispositions.count(everything, everything)
    known = {key: float(metric(whole.counts.totals())) for key, metric in whole.metrics().items()}
    held = dict.fromkeys(known, 0)
    samples = 120
    for seed in range(samples):
        found = Dispositions.count(everything, draw_sample(everything, size=100, seed=seed))
        for key, metric in found.metrics().items():
            figure = estimate(found.counts, metric, np.random.default_rng(seed))
            held[key] += figure.low - 1e-9 <= known[key] <= figure.high + 1e-9
    assert min(held.values()) >= 0.88 * samples, held
    assert np.mean(list(held.values())) >= 0.93 * samples, held


def test_without_weights_the_population_would_be_misjudged():
    """Equal shares over-sample the small disposition, and it has the errors: the plain share is far off."""
    everything = population({"PUNISH": 100, "RETAIN": 5000}, {"PUNISH": 0.8, "RETAIN": 0.01})
    truly = (everything["disposition"] != everything["true_disposition"]).mean()
    weighted, plain = [], []
    for seed in range(30):
        sample = draw_sample(everything, size=100, seed=seed)
        counts = Dispositions.count(everything, sample)
        figure = counts.metrics()["misrouted", "all pairs"](counts.counts.totals())
        weighted.append(float(figure))
        plain.append((sample["disposition"] != sample["true_disposition"]).mean())
    assert abs(np.mean(weighted) - truly) < 0.01
    assert np.mean(plain) > 10 * truly
