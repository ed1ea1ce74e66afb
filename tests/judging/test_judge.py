"""Judgments of every response, the oracle measured against the truth, and what stops a run."""

from pathlib import Path

import pandas as pd
import pytest
from made_up_pairs import POLICY, ScriptedOracle, make_pairs

from realignment import intake
from realignment.intake.readers import read_table
from realignment.judging import check_oracle, judge_pairs, measure_oracle, measure_stability
from realignment.oracles.rules import RulesOracle
from realignment.parameters import JudgingParameters
from realignment.pipelines.judging import nodes
from realignment.policy import parse_policy, read_policy
from realignment.records import DataError, HealthError
from realignment.statistics import wilson_interval

ROOT = Path(__file__).parents[2]


def test_every_response_is_judged_once_and_corrections_where_they_are():
    pairs = make_pairs({}, {"correction": "better 1", "domain": "law"})
    oracle = ScriptedOracle({"chosen 0": True, "rejected 0": (False, 0.75), "better 1": True})
    judgments = judge_pairs(pairs, POLICY, oracle)
    expected = [
        ("p0", "chosen"),
        ("p1", "chosen"),
        ("p0", "rejected"),
        ("p1", "rejected"),
        ("p1", "correction"),
    ]
    assert list(zip(judgments["pair_id"], judgments["response"], strict=True)) == expected
    assert judgments["complies"].tolist() == [True, pd.NA, False, pd.NA, True]
    assert judgments["confidence"].tolist() == [1.0, 0.0, 0.75, 0.0, 1.0]
    assert judgments["rules_broken"].tolist() == ["", "", "rule-a,rule-b", "", ""]
    assert set(judgments["oracle"]) == {"scripted"}
    assert [e.domain for e in oracle.asked] == [None, "law", None, "law", "law"]


TRUTH = make_pairs(
    {"chosen_complies": True, "rejected_complies": False},  # right, right: RETAIN as RETAIN
    {"chosen_complies": False, "rejected_complies": True},  # right, wrong: INVERT as PUNISH
    {"chosen_complies": False, "rejected_complies": False},  # wrong, right: PUNISH as RETAIN
    {"chosen_complies": False, "rejected_complies": True},  # unscored, right: INVERT as REVIEW
    {"chosen_complies": None, "rejected_complies": True},  # no truth, right: no disposition to measure
)
VERDICTS = {
    "chosen 0": True, "rejected 0": False, "chosen 1": False, "rejected 1": False, "chosen 2": True,
    "rejected 2": False, "rejected 3": True, "chosen 4": False, "rejected 4": True,
}  # fmt: skip


def test_the_oracle_report_counts_by_hand():
    report = measure_oracle(TRUTH, judge_pairs(TRUTH, POLICY, ScriptedOracle(VERDICTS)))
    assert report == {
        "oracle": "scripted",
        "n": 10,
        "unscored": 1,
        "accuracy": 6 / 8,
        "interval": list(wilson_interval(6, 8)),
        "confusion": {"tp": 3, "fp": 1, "fn": 1, "tn": 3},
        "by_field": {
            "chosen": {"tp": 1, "fp": 1, "fn": 0, "tn": 1},
            "rejected": {"tp": 2, "fp": 0, "fn": 1, "tn": 2},
        },
        "disposition_accuracy": 1 / 4,
        "disposition_confusion": {
            "RETAIN": {"RETAIN": 1},
            "INVERT": {"PUNISH": 1, "REVIEW": 1},
            "PUNISH": {"RETAIN": 1},
        },
    }


def test_the_order_of_the_judgments_does_not_matter():
    judgments = judge_pairs(TRUTH, POLICY, ScriptedOracle(VERDICTS))
    shuffled = judgments.sample(frac=1, random_state=3)
    assert measure_oracle(TRUTH, shuffled) == measure_oracle(TRUTH, judgments)


@pytest.mark.parametrize("truth", [{}, {"chosen_complies": None, "rejected_complies": None}])
def test_without_truth_there_is_no_accuracy(truth):
    pairs = make_pairs(truth, truth)
    report = measure_oracle(pairs, judge_pairs(pairs, POLICY, ScriptedOracle({"chosen 0": True})))
    assert report == {"oracle": "scripted", "n": 4, "unscored": 3, "accuracy": None, "interval": None}


class Fickle(ScriptedOracle):
    """Answers as scripted the first time that it is called, and the opposite ever after."""

    def _judge(self, response):
        judgment = super()._judge(response)
        if len(self.asked) <= 8:
            return judgment
        return type(judgment)(complies=not judgment.complies, confidence=1.0, oracle=self.name)


SAME = {f"{kind} {i}": i % 2 == 0 for kind in ("chosen", "rejected") for i in range(4)}


def test_an_oracle_that_repeats_itself_is_stable():
    pairs, oracle = make_pairs({}, {}, {}, {}), ScriptedOracle(SAME)
    judgments = judge_pairs(pairs, POLICY, oracle)
    assert measure_stability(pairs, POLICY, oracle, judgments, sample=99, seed=0) == 1.0


def test_an_oracle_that_turns_round_has_no_stability():
    pairs, oracle = make_pairs({}, {}, {}, {}), Fickle(SAME)
    judgments = judge_pairs(pairs, POLICY, oracle)
    assert measure_stability(pairs, POLICY, oracle, judgments, sample=99, seed=0) == 0.0


def test_unscored_twice_is_the_same_verdict_and_unscored_once_is_not():
    pairs = make_pairs({}, {}, {}, {})
    silent, outspoken = ScriptedOracle({}), ScriptedOracle({"chosen 0": True, "rejected 3": False})
    judgments = judge_pairs(pairs, POLICY, silent)
    assert measure_stability(pairs, POLICY, silent, judgments, sample=8, seed=0) == 1.0
    assert measure_stability(pairs, POLICY, outspoken, judgments, sample=8, seed=0) == 6 / 8


@pytest.mark.parametrize(("sample", "n_judged"), [(2, 2), (3, 4), (8, 8), (50, 8)])
def test_as_many_responses_are_asked_again_as_the_sample_says(sample, n_judged):
    pairs, oracle = make_pairs({"correction": "c"}, {}, {}, {}), ScriptedOracle(SAME)
    judgments = judge_pairs(pairs, POLICY, ScriptedOracle(SAME))
    measure_stability(pairs, POLICY, oracle, judgments, sample=sample, seed=0)
    assert len(oracle.asked) == n_judged


def test_no_sample_is_no_stability():
    pairs, oracle = make_pairs({}), ScriptedOracle(SAME)
    assert measure_stability(pairs, POLICY, oracle, pd.DataFrame(), sample=0, seed=0) is None
    assert oracle.asked == []


REPORT = {"oracle": "scripted", "n": 10, "unscored": 2, "stability": 0.9}
JUDGMENTS = pd.DataFrame(
    {"complies": [None, None, None, True], "reason": ["cut off", "no reply", "cut off", "fine"]}
)
LIMITS = {"max_unscored": 0.2, "min_stability": 0.9}


@pytest.mark.parametrize("stability", [0.9, None])
def test_an_oracle_at_its_limits_passes(stability):
    check_oracle(REPORT | {"stability": stability}, JUDGMENTS, **LIMITS)


def test_too_many_unscored_responses_stop_the_run():
    message = r"left 3 of 10 .*30%, limit 20%.*this reason: 'cut off'.*`judging.max_unscored`.*refresh=true"
    with pytest.raises(HealthError, match=message):
        check_oracle(REPORT | {"unscored": 3}, JUDGMENTS, **LIMITS)


def test_an_unstable_oracle_stops_the_run():
    with pytest.raises(HealthError, match=r"repeats only 80% .*limit 90%.*`judging.min_stability`"):
        check_oracle(REPORT | {"stability": 0.8}, JUDGMENTS, **LIMITS)


def test_the_label_oracle_needs_labels():
    parameters = JudgingParameters(oracle="labels")
    with pytest.raises(DataError, match=r"the pairs give no label.*`judging.oracle: rules`"):
        nodes.judge_pairs(make_pairs({}, chosen_complies=None), POLICY, parameters, 0)


def test_the_label_oracle_is_right_by_definition():
    labelled = make_pairs({"chosen_complies": True, "rejected_complies": False}, {"chosen_complies": False})
    parameters = JudgingParameters(oracle="labels", max_unscored=0.5)
    judgments, report, manifest = nodes.judge_pairs(labelled, POLICY, parameters, 0)
    assert (report["accuracy"], report["unscored"], report["stability"]) == (1.0, 1, 1.0)
    assert manifest["oracle"] == "labels"
    assert manifest["policy"] == POLICY.digest
    assert len(judgments) == 4


@pytest.fixture(scope="module")
def sample():
    raw = read_table(str(ROOT / "data/01_raw/sample/pairs.jsonl"))
    pairs = intake.clean_pairs(raw, invalid="fail", max_prompt_chars=8000, long_prompts="fail").pairs
    policy = read_policy(ROOT / "conf/base/policies/assistant-v2.yml")
    return pairs, judge_pairs(pairs, policy, RulesOracle())


def test_the_rules_agree_with_the_hand_set_truth_of_the_sample(sample):
    pairs, judgments = sample
    truth = pd.concat([pairs["chosen_complies"], pairs["rejected_complies"]]).to_numpy(bool)
    scored = judgments[judgments["response"] != "correction"]
    verdicts = scored["complies"].to_numpy(bool)
    confusion = {
        "tp": int((truth & verdicts).sum()), "fp": int((~truth & verdicts).sum()),
        "fn": int((truth & ~verdicts).sum()), "tn": int((~truth & ~verdicts).sum()),
    }  # fmt: skip
    right = int((truth == verdicts).sum())
    report = measure_oracle(pairs, judgments)
    assert right / len(truth) >= 0.93, f"the rules are right on {right} of {len(truth)} responses"
    assert (report["n"], report["unscored"]) == (len(truth), 0)
    assert report["accuracy"] == right / len(truth)
    assert report["interval"] == list(wilson_interval(right, len(truth)))
    assert report["confusion"] == confusion
    for key, count in confusion.items():
        assert sum(part[key] for part in report["by_field"].values()) == count


def test_the_rules_give_the_sample_the_true_disposition_nine_times_of_ten(sample):
    pairs, judgments = sample
    report = measure_oracle(pairs, judgments)
    assert report["disposition_accuracy"] >= 0.9
    assert sum(sum(row.values()) for row in report["disposition_confusion"].values()) == len(pairs)


def test_the_rules_accept_the_corrections_of_the_sample(sample):
    _, judgments = sample
    corrections = judgments.loc[judgments["response"] == "correction", "complies"]
    assert len(corrections) >= 50
    assert corrections.mean() >= 0.93, f"{corrections.mean():.3f} of the corrections comply by the rules"


RULE = {"id": "a", "description": "A.", "check": {"kind": "forbidden", "patterns": ["1"]}}
RULED = parse_policy({"name": "a", "version": "1", "text": "t", "rules": [RULE]}, "test")


@pytest.mark.parametrize("chunk_size", [1, 2, 3, 99])
def test_the_chunk_size_does_not_matter_and_an_oracle_is_asked_once_a_chunk(chunk_size):
    pairs = make_pairs({"correction": "c"}, {}, {"correction": "d 1"}, {})
    seen = []

    def oracle(exchanges, policy):
        seen.append(len(exchanges))
        return RulesOracle()(exchanges, policy)

    oracle.name = "rules"
    judged = judge_pairs(pairs, RULED, oracle, chunk_size=chunk_size)
    pd.testing.assert_frame_equal(judged, judge_pairs(pairs, RULED, RulesOracle()))
    assert len(judged) == 10
    of_pairs = [3, 2, 3, 2]
    assert seen == [sum(of_pairs[start : start + chunk_size]) for start in range(0, 4, chunk_size)]


def test_no_pair_is_no_judgment():
    judged = judge_pairs(make_pairs({}).iloc[:0], RULED, RulesOracle(), chunk_size=5)
    assert judged.empty
    assert list(judged) == list(judge_pairs(make_pairs({}), RULED, RulesOracle()))
