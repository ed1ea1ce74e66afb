"""The draw of the gold batch: quotas, which pairs state a preference, and rules covered evenly."""

from collections import Counter
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up_pairs import POLICY, ScriptedOracle, make_pairs

from realignment import triage
from realignment.gold.drawing import compute_gold_quota, draw_evenly, draw_gold, select_candidates
from realignment.judging import judge_pairs


def test_the_quota_is_thirds_and_punish_takes_the_remainder():
    plenty = {"INVERT": 99, "PUNISH": 99, "RETAIN": 99}
    assert compute_gold_quota(plenty, 36) == {"RETAIN": 12, "INVERT": 12, "PUNISH": 12}
    assert compute_gold_quota(plenty, 64) == {"RETAIN": 21, "INVERT": 21, "PUNISH": 22}


@pytest.mark.parametrize(
    ("available", "quota"),
    [
        ({"INVERT": 99, "RETAIN": 99}, {"RETAIN": 4, "INVERT": 8, "PUNISH": 0}),
        ({"INVERT": 5, "RETAIN": 99}, {"RETAIN": 7, "INVERT": 5, "PUNISH": 0}),
        ({"PUNISH": 99, "RETAIN": 2}, {"RETAIN": 2, "INVERT": 0, "PUNISH": 10}),
        ({"INVERT": 1, "PUNISH": 1, "RETAIN": 1}, {"RETAIN": 1, "INVERT": 1, "PUNISH": 1}),
        ({}, {"RETAIN": 0, "INVERT": 0, "PUNISH": 0}),
    ],
)
def test_what_one_disposition_lacks_the_others_give(available, quota):
    assert compute_gold_quota(available, 12) == quota


@settings(deadline=None)
@given(
    st.fixed_dictionaries({d: st.integers(0, 40) for d in ("INVERT", "PUNISH", "RETAIN")}), st.integers(3, 90)
)
def test_the_quota_is_full_wherever_the_pairs_suffice(available, size):
    quota = compute_gold_quota(available, size)
    assert sum(quota.values()) == min(size, sum(available.values()))
    assert all(0 <= quota[d] <= available[d] for d in quota)


PAIRS = make_pairs(
    {"disposition": "INVERT", "rejected_verdict": True},
    {"disposition": "PUNISH", "rejected_verdict": False, "correction": "better"},
    {"disposition": "PUNISH", "rejected_verdict": False},
    {"disposition": "RETAIN", "rejected_verdict": False},
    {"disposition": "RETAIN", "rejected_verdict": True},
    {"disposition": "RETAIN", "rejected_verdict": None},
)


@pytest.mark.parametrize("dtype", ["boolean", object])
@pytest.mark.parametrize(
    ("retained", "punished", "ids"),
    [
        ("decided", "correction", ["p0", "p1", "p3"]),
        ("all", "correction", ["p0", "p1", "p3", "p4", "p5"]),
        ("decided", "random_compliant", ["p0", "p1", "p2", "p3"]),
        ("all", "random_compliant", ["p0", "p1", "p2", "p3", "p4", "p5"]),
    ],
)
def test_which_pairs_state_a_preference(dtype, retained, punished, ids):
    pairs = PAIRS.assign(rejected_verdict=pd.array(PAIRS["rejected_verdict"].tolist(), dtype=dtype))
    found = select_candidates(pairs, retained=retained, punished=punished)
    assert found["pair_id"].tolist() == ids


def test_one_pair_a_prompt_and_prompts_of_one_pair_first():
    prompts = ["twice", "twice", "once", "once more"]
    pairs = make_pairs(
        *({"disposition": "INVERT", "rejected_verdict": True} for _ in prompts), prompt=prompts
    )
    found = select_candidates(pairs, retained="decided", punished="correction")
    assert found["prompt"].tolist() == ["once", "once more", "twice"]


def coverage_of(rules_broken, positions):
    return Counter(rule for position in positions for rule in set(rules_broken[position]))


def drawn_one_by_one(rules_broken, count):
    """The slow twin: all pairs left are looked at before each draw."""
    left = list(range(len(rules_broken)))
    coverage = Counter()
    drawn = []
    while left and len(drawn) < count:
        covered = {position: [coverage[rule] for rule in rules_broken[position]] for position in left}
        least = min(min(counts) for counts in covered.values())
        best = [position for position in left if min(covered[position]) == least]
        lowest = min(max(covered[position]) for position in best)
        chosen = next(position for position in best if max(covered[position]) == lowest)
        left.remove(chosen)
        drawn.append(chosen)
        coverage.update(set(rules_broken[chosen]))
    return drawn


RULES = st.lists(st.sampled_from("aaaaabbcd"), min_size=1, max_size=3).map(tuple)
"""Rules of very unequal frequency; a name may come twice."""


@settings(deadline=None)
@given(st.lists(RULES, max_size=25), st.integers(0, 25))
def test_the_draw_is_that_of_looking_at_every_pair_each_time(rules_broken, count):
    assert draw_evenly(rules_broken, count, Counter()) == drawn_one_by_one(rules_broken, count)


@settings(deadline=None)
@given(st.lists(st.sampled_from("aaaaaaabbcd"), min_size=1, max_size=9), st.integers(1, 8))
def test_pairs_of_one_rule_each_cover_the_rules_as_evenly_as_any_choice_of_pairs(rules, count):
    rules_broken = [(rule,) for rule in rules]
    count = min(count, len(rules))

    def evenness(positions):
        coverage = coverage_of(rules_broken, positions)
        return sorted(coverage[rule] for rule in set(rules))

    best = max(evenness(positions) for positions in combinations(range(len(rules)), count))
    assert evenness(draw_evenly(rules_broken, count, Counter())) == best


@settings(deadline=None)
@given(st.lists(RULES, min_size=1, max_size=40), st.integers(1, 40))
def test_a_rule_with_pairs_left_lacks_at_most_one_of_its_share(rules_broken, count):
    drawn = draw_evenly(rules_broken, count, Counter())
    assert len(drawn) == len(set(drawn)) == min(count, len(rules_broken))
    coverage = coverage_of(rules_broken, drawn)
    left = {
        rule for position in set(range(len(rules_broken))) - set(drawn) for rule in rules_broken[position]
    }
    n_rules = len({rule for rules in rules_broken for rule in rules})
    assert all(coverage[rule] >= len(drawn) / n_rules - 1 for rule in left)


def conflicts(rules, disposition="INVERT"):
    rows = [{"disposition": disposition, "rules_broken": broken, "correction": "better"} for broken in rules]
    return make_pairs(*rows)


def test_a_rule_that_is_broken_in_many_combinations_counts_once():
    # By combinations each of these five would be as frequent as `rare`: `common` five times, `rare` once.
    combined = [f"common,with-{number}" for number in range(4)] * 10 + ["common"] * 10
    pairs = conflicts([*combined, *["rare"] * 10])
    gold = draw_gold(pairs, 10, "policy_targeted")
    coverage = Counter(rule for cell in gold["rules_broken"] for rule in cell.split(","))
    assert coverage["rare"] == 2
    assert {coverage[f"with-{number}"] for number in range(4)} == {2}


def test_what_one_disposition_lacks_of_a_rule_the_other_makes_up_for():
    inverted = conflicts(["a"] * 20)
    punished = conflicts(["a"] * 20 + ["b"] * 20, "PUNISH").assign(prompt="another " + inverted["prompt"][0])
    gold = draw_gold(pd.concat([inverted, punished], ignore_index=True), 12, "policy_targeted")
    assert Counter(zip(gold["disposition"], gold["rules_broken"], strict=True)) == {
        ("INVERT", "a"): 8,
        ("PUNISH", "b"): 4,
    }


def test_pairs_that_name_no_rule_are_a_group_of_their_own():
    gold = draw_gold(conflicts([""] * 30 + ["a"] * 3), 6, "policy_targeted")
    assert Counter(gold["rules_broken"]) == {"": 3, "a": 3}


def test_the_order_of_the_candidates_decides_between_equals():
    pairs = conflicts(["a", "b"] * 20)
    shuffled = pairs.iloc[np.random.default_rng(0).permutation(40)]
    for candidates in (pairs, shuffled):
        gold = draw_gold(candidates, 6, "policy_targeted")
        first = [candidates[candidates["rules_broken"] == rule].head(3) for rule in ("a", "b")]
        assert set(gold["pair_id"]) == set(pd.concat(first)["pair_id"])


def test_rules_are_read_as_triage_leaves_them_in_parquet(tmp_path):
    pairs = make_pairs(*({"domain": "money"} for _ in range(6)))
    script = {f"chosen {number}": False for number in range(6)} | {f"rejected {n}": True for n in range(6)}
    judgments = judge_pairs(pairs, POLICY, ScriptedOracle(script))
    triage.triage(pairs, judgments, min_confidence=0.5).to_parquet(tmp_path / "triaged.parquet")
    triaged = pd.read_parquet(tmp_path / "triaged.parquet")
    assert triaged["rules_broken"].tolist() == ["rule-a,rule-b"] * 6
    # Read as one name, "rule-a,rule-b" would be a third rule, and a pair of `rule-b` would come next.
    more = conflicts(["rule-b", "rule-c"]).assign(
        pair_id=["b", "c"], prompt=["B?", "C?"], rejected_verdict=True
    )
    candidates = select_candidates(
        pd.concat([triaged, more], ignore_index=True), retained="decided", punished="correction"
    )
    assert draw_gold(candidates, 2, "policy_targeted")["pair_id"].tolist() == ["p0", "c"]
