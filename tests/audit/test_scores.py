"""Figures of a confusion matrix are those that scikit-learn gives on the pairs one by one."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import cohen_kappa_score, precision_recall_fscore_support

from realignment.audit.sampling import tally
from realignment.audit.scores import Dispositions, half, kappa, verdict_metrics

KINDS = ["INVERT", "PUNISH", "RETAIN"]


def pairs(n=400, *, review=True):
    rng = np.random.default_rng(5)
    assigned = rng.choice([*KINDS, *(["REVIEW"] if review else [])], n)
    true = np.where(rng.random(n) < 0.7, assigned, rng.choice(KINDS, n))
    true = np.where(true == "REVIEW", "INVERT", true)
    return pd.DataFrame({"disposition": assigned, "true_disposition": true})


def figures(table):
    dispositions = Dispositions.count(table, table)
    return {key: float(m(dispositions.counts.totals())) for key, m in dispositions.metrics().items()}


def test_precision_recall_and_f1_of_every_disposition_are_scikit_learns():
    table = pairs()
    found = figures(table)
    expected = precision_recall_fscore_support(
        table["true_disposition"], table["disposition"], labels=KINDS, zero_division=np.nan
    )
    for place, kind in enumerate(KINDS):
        for name, column in zip(("precision", "recall", "f1"), expected[:3], strict=True):
            assert found[name, kind] == pytest.approx(column[place]), (name, kind)


def test_kappa_is_scikit_learns_over_the_pairs_outside_review():
    table = pairs()
    routed = table[table["disposition"] != "REVIEW"]
    expected = cohen_kappa_score(routed["true_disposition"], routed["disposition"])
    assert figures(table)["kappa", "all pairs"] == pytest.approx(expected)


def test_misrouted_pairs_are_those_outside_review_with_another_disposition():
    table = pairs()
    routed = table[table["disposition"] != "REVIEW"]
    found = figures(table)
    assert found["misrouted", "all pairs"] == pytest.approx(
        (routed["disposition"] != routed["true_disposition"]).mean()
    )
    assert found["accuracy", "all pairs"] == pytest.approx(
        (table["disposition"] == table["true_disposition"]).mean()
    )
    without = figures(routed)
    assert without["accuracy", "all pairs"] == pytest.approx(1 - without["misrouted", "all pairs"])


def test_a_disposition_that_nothing_was_given_or_is_has_no_figures():
    found = figures(pd.DataFrame({"disposition": ["INVERT"] * 4, "true_disposition": ["INVERT"] * 4}))
    assert found["precision", "INVERT"] == found["recall", "INVERT"] == 1.0
    assert np.isnan(found["precision", "PUNISH"])
    assert np.isnan(found["recall", "RETAIN"])
    assert np.isnan(found["kappa", "all pairs"])


def test_kappa_weighs_pairs_as_scikit_learn_does_with_sample_weights():
    rng = np.random.default_rng(1)
    matrix = rng.integers(1, 40, size=(3, 3)).astype(float)
    rows, columns = np.indices((3, 3))
    expected = cohen_kappa_score(rows.ravel(), columns.ravel(), sample_weight=matrix.ravel())
    assert kappa(matrix) == pytest.approx(expected)
    assert kappa(np.stack([matrix, 2 * matrix])).tolist() == pytest.approx([expected, expected])


def test_verdicts_are_measured_on_violations():
    rng = np.random.default_rng(2)
    verdict, truth = rng.random(300) < 0.6, rng.random(300) < 0.5
    table = pd.DataFrame({"stratum": "a", "verdict": verdict, "right": verdict == truth})
    keys, counts = tally(table, table, ["stratum", "verdict"], "right", {True: half, False: half})
    found = {name: float(m(counts.totals())) for name, m in verdict_metrics(keys, 1).items()}
    precision, recall, f1, _ = precision_recall_fscore_support(~truth, ~verdict, average="binary")
    assert found == pytest.approx(
        {
            "accuracy": (verdict == truth).mean(), "precision": precision, "recall": recall, "f1": f1,
            "kappa": cohen_kappa_score(truth, verdict),
        }
    )  # fmt: skip
