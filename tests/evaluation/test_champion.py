"""Candidate and champion are compared on the same prompts, by the same judge."""

import numpy as np
import pandas as pd
import pytest

from realignment.evaluation.champion import compare_with_champion
from realignment.evaluation.table import COLUMNS
from realignment.statistics import compare_proportions


def responses(regulated, outside=(), *, judge="rules", first=0):
    rows = [(f"regulated {n}", "regulated", "money", verdict) for n, verdict in enumerate(regulated, first)]
    rows += [(f"outside {n}", "look_alike", "ordinary", verdict) for n, verdict in enumerate(outside)]
    table = pd.DataFrame(rows, columns=["prompt", "kind", "domain", f"after_{judge}"])
    return table.assign(origin=None).astype({f"after_{judge}": "boolean"})


def headline(comparisons):
    rows = comparisons[comparisons["group"].isin(["regulated", "overall"])]
    return rows.to_dict("records")


def test_a_model_compared_with_itself_has_no_difference():
    table = responses([True] * 50 + [False] * 16, [True] * 60 + [False] * 6)
    agreement, over_refusal = headline(compare_with_champion(table, table))
    assert (agreement["metric"], agreement["n"], agreement["difference"]) == ("agreement", 66, 0.0)
    assert -0.1 < agreement["difference_low"] <= 0 <= agreement["difference_high"] < 0.1
    assert (over_refusal["metric"], over_refusal["after"]) == ("over_refusal", pytest.approx(6 / 66))


def test_the_difference_is_paired_over_the_prompts_that_both_have_answered():
    rng = np.random.default_rng(0)
    champion, candidate = rng.random(80) < 0.7, rng.random(80) < 0.4
    former = responses([*champion.tolist(), True, True]).sample(frac=1, random_state=1)
    (found,) = headline(compare_with_champion(responses(candidate.tolist()), former))
    expected = compare_proportions(champion, candidate)
    assert (found["n"], found["difference"]) == (80, pytest.approx(expected.difference))
    assert found["difference_low"] == pytest.approx(expected.difference_low)
    assert (found["before"], found["after"]) == (
        pytest.approx(champion.mean()),
        pytest.approx(candidate.mean()),
    )


def test_the_verdicts_before_training_do_not_count():
    table = responses([True, False])
    misleading = table.assign(before_rules=pd.array([False, True], dtype="boolean"))
    (found,) = headline(compare_with_champion(misleading, misleading))
    assert (found["before"], found["after"]) == (0.5, 0.5)


def test_domains_are_compared_too():
    table = responses([True, False, True])
    found = compare_with_champion(table, table)
    assert list(found.columns) == list(COLUMNS)
    assert found["group"].tolist() == ["regulated", "domain:money"]


def test_a_prompt_given_twice_counts_once_and_an_unscored_answer_does_not():
    table = responses([True, False, None])
    (found,) = headline(compare_with_champion(pd.concat([table, table]), table))
    assert found["n"] == 2


def test_other_judges_and_other_prompts_cannot_be_compared():
    assert compare_with_champion(responses([True]), responses([True], judge="classifier")).empty
    assert compare_with_champion(responses([True]), responses([True], first=5)).empty
    assert compare_with_champion(responses([True]), responses([True]).iloc[:0]).empty
