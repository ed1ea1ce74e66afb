"""An audit measured by hand: figures, calibration, error rates, what they mean, and what stops a run."""

import numpy as np
import pandas as pd
import pytest
from made_up_pairs import POLICY, ScriptedOracle, make_pairs

from realignment import judging, triage
from realignment.audit import calibration, comparison, consequences, measuring, truth
from realignment.audit.sampling import draw_sample
from realignment.parameters import AuditParameters, JudgingParameters
from realignment.pipelines.audit import nodes
from realignment.records import DataError, HealthError
from realignment.tracking import lineage


def audited_pairs(wrong=3, n=30):
    """n INVERT, n PUNISH, n RETAIN pairs by the oracle; of each the first `wrong` are not so in truth."""
    rows, script = [], {}
    for kind, (chosen, rejected) in enumerate([(False, True), (False, False), (True, False)]):
        for place in range(n):
            number = kind * n + place
            flip = place < wrong
            rows.append({"chosen_complies": chosen != flip, "rejected_complies": rejected})
            script |= {f"chosen {number}": (chosen, 0.9), f"rejected {number}": (rejected, 0.8)}
    pairs = make_pairs(*rows)
    judgments = judging.judge_pairs(pairs, POLICY, ScriptedOracle(script))
    return pairs, judgments, triage.triage(pairs, judgments, min_confidence=0.5)


def run_audit(*, size, wrong=3, seed=0):
    pairs, judgments, triaged = audited_pairs(wrong)
    sample = draw_sample(triaged, size=size, seed=seed)
    known = truth.truth_from_labels(pairs)
    return measuring.audit_oracle(triaged, judgments, sample, known, seed=seed), triaged, judgments, sample


def figure(audit, scope, metric, group):
    rows = audit.metrics.set_index(["scope", "metric", "group"])
    return rows.loc[(scope, metric, group)]


def test_an_audit_of_all_pairs_is_the_plain_count_without_uncertainty():
    audit, *_ = run_audit(size=90)
    misrouted = figure(audit, "disposition", "misrouted", "all pairs")
    assert (misrouted["value"], misrouted["low"], misrouted["high"], misrouted["n"]) == (
        pytest.approx(9 / 90), pytest.approx(9 / 90), pytest.approx(9 / 90), 90
    )  # fmt: skip
    verdict = figure(audit, "verdict", "accuracy", "all verdicts")
    assert verdict["value"] == pytest.approx(1 - 9 / 180)
    cells = audit.confusion.set_index(["assigned", "true"])["pairs"]
    assert cells["INVERT", "RETAIN"] == 3
    assert cells["PUNISH", "RETAIN"] == 3
    assert cells["RETAIN", "PUNISH"] == 3
    assert cells.sum() == 90


def test_an_audit_of_a_part_has_intervals_around_the_same_figures():
    audit, *_ = run_audit(size=45, seed=1)
    misrouted = figure(audit, "disposition", "misrouted", "all pairs")
    assert misrouted["low"] <= 9 / 90 <= misrouted["high"]
    assert misrouted["low"] < misrouted["value"] < misrouted["high"]
    assert misrouted["n"] == 45
    assert figure(audit, "disposition", "precision", "INVERT")["n"] == 15


def test_the_precision_of_a_rule_is_the_share_of_true_violations_among_its_alarms():
    """The scripted oracle says of every violation that it breaks rule-a and rule-b."""
    audit, *_ = run_audit(size=90)
    rule = figure(audit, "rule", "precision", "rule-a")
    assert (rule["value"], rule["n"]) == (pytest.approx(114 / 120), 120)
    assert "recall" not in set(audit.metrics.loc[audit.metrics["scope"] == "rule", "metric"])


def test_where_the_truth_names_rules_they_have_recall_too():
    pairs, judgments, triaged = audited_pairs(wrong=0)
    known = truth.truth_from_labels(pairs)
    for response in ("chosen", "rejected"):
        violates = ~known[f"{response}_truth"].astype(bool)
        known[f"{response}_rules"] = ["rule-a" if v else "" for v in violates]
    sample = draw_sample(triaged, size=90, seed=0)
    audit = measuring.audit_oracle(triaged, judgments, sample, known, seed=0)
    assert figure(audit, "rule", "precision", "rule-a")["value"] == 1.0
    assert figure(audit, "rule", "recall", "rule-a")["value"] == 1.0
    assert figure(audit, "rule", "precision", "rule-b")["value"] == 0.0


def test_calibration_compares_confidence_and_accuracy_bin_by_bin():
    audit, *_ = run_audit(size=90)
    bins = audit.reliability.set_index("bin")
    assert bins.index.tolist() == [6, 8]  # confidences 0.8 and 0.9
    assert bins["confidence"].tolist() == pytest.approx([0.8, 0.9])
    assert bins["accuracy"].tolist() == pytest.approx([1.0, 81 / 90])
    assert figure(audit, "calibration", "ece", "all verdicts")["value"] == pytest.approx(0.5 * 0.2)
    over = figure(audit, "calibration", "overconfidence", "all verdicts")["value"]
    assert over == pytest.approx(0.85 - (90 + 81) / 180)
    brier = figure(audit, "calibration", "brier", "all verdicts")["value"]
    assert brier == pytest.approx((90 * 0.2**2 + 81 * 0.1**2 + 9 * 0.9**2) / 180)


def test_a_well_calibrated_oracle_has_little_overconfidence_and_a_boastful_one_much():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.5, 1, 4000)
    verdicts = pd.DataFrame({"stratum": "a", "response": "chosen", "confidence": confidence})
    honest = verdicts.assign(right=rng.random(4000) < confidence)
    boastful = verdicts.assign(right=rng.random(4000) < confidence - 0.3)
    for table, expected in ((honest, 0.0), (boastful, 0.3)):
        found, _ = calibration.measure_calibration(verdicts, table.head(400), rng)
        assert found["overconfidence"].low <= expected <= found["overconfidence"].high
        assert abs(found["overconfidence"].value - expected) < 0.06


def stated(*rows):
    names = ["disposition", "rejected_verdict", "chosen_truth", "rejected_truth", "confidence"]
    table = pd.DataFrame(rows, columns=names)
    for name in names[1:4]:
        table[name] = pd.array(table[name], dtype="boolean")
    return table


def test_a_preference_is_wrong_where_it_is_reversed_and_half_wrong_where_there_is_none():
    table = stated(
        ("INVERT", True, False, True, 1.0),  # right
        ("INVERT", True, True, False, 1.0),  # the wrong way round
        ("INVERT", True, True, True, 1.0),  # both comply
        ("INVERT", True, False, False, 1.0),  # both violate
        ("RETAIN", False, True, False, 1.0),  # right
        ("RETAIN", False, False, True, 1.0),  # the wrong way round
        ("RETAIN", True, True, True, 1.0),  # states none
        ("PUNISH", False, False, False, 1.0),  # states none
        ("INVERT", True, None, True, 1.0),  # unknown
    )
    errors = calibration.preference_errors(table)
    assert errors.isna().tolist() == [False] * 6 + [True] * 3
    assert errors.dropna().tolist() == [0, 1, 0.5, 0.5, 0, 1]


def test_error_rates_are_smoothed_counts_where_all_verdicts_are_as_sure():
    table = stated(*[("INVERT", True, i < 2, i >= 2, 1.0) for i in range(19)])
    fitted = calibration.fit_error_rates(table)
    assert fitted == {"INVERT": {"n": 19, "rate": pytest.approx(2.5 / 20)}}
    pairs = pd.DataFrame({"disposition": ["INVERT", "RETAIN"], "confidence": [1.0, 1.0]})
    rates = calibration.error_rates(pairs, fitted)
    assert rates[0] == pytest.approx(0.125)
    assert np.isnan(rates[1])


def test_a_doubtful_verdict_has_a_larger_error_rate_than_a_sure_one():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.55, 0.98, 300)
    flips = rng.random(300) > confidence
    table = stated(*[("INVERT", True, f, not f, c) for f, c in zip(flips.tolist(), confidence, strict=True)])
    fitted = calibration.fit_error_rates(table)
    pairs = pd.DataFrame({"disposition": "INVERT", "confidence": [0.6, 0.75, 0.95]})
    rates = calibration.error_rates(pairs, fitted)
    assert rates.tolist() == pytest.approx([0.4, 0.25, 0.05], abs=0.08)
    assert rates.is_monotonic_decreasing


def test_error_rates_stay_where_the_robust_loss_is_defined():
    table = stated(*[("INVERT", True, True, False, 1.0)] * 9)
    rates = calibration.error_rates(
        pd.DataFrame({"disposition": ["INVERT"], "confidence": [1.0]}), calibration.fit_error_rates(table)
    )
    assert rates.tolist() == [calibration.MAX_ERROR_RATE]


def test_oracles_agree_as_often_as_they_do():
    pairs, judgments, triaged = audited_pairs(wrong=0)
    again = judgments[judgments["response"] != "correction"].assign(round=1)
    opposite = again["complies"] != again["pair_id"].isin(pairs["pair_id"].head(9))
    other = again.assign(round=0, oracle="other", complies=pd.array(opposite, dtype="boolean"))
    rows = comparison.compare_oracles(triaged, judgments, pd.concat([again, other]), seed=0)
    found = {(scope, metric, group): figure.value for scope, metric, group, figure in rows}
    assert found["stability", "agreement", "scripted, asked again (1)"] == 1.0
    assert found["agreement", "agreement", "scripted and other"] == pytest.approx(0.9)
    assert found["agreement", "kappa", "scripted and other"] < 0.9


def test_a_sample_of_other_splits_is_refused():
    _, triaged, judgments, sample = run_audit(size=30)
    moved = triaged.assign(disposition="RETAIN")
    with pytest.raises(DataError, match=r"drawn from other splits"):
        measuring.audit_oracle(moved, judgments, sample, truth.truth_from_labels(triaged), seed=0)


def test_a_sample_without_truth_is_refused():
    _, triaged, judgments, sample = run_audit(size=30)
    unknown = truth.truth_from_labels(triaged.drop(columns=["chosen_complies", "rejected_complies"]))
    with pytest.raises(DataError, match=r"None of the 30 sampled pairs has a known truth.*review_import"):
        measuring.audit_oracle(triaged, judgments, sample, unknown, seed=0)


def test_the_audit_as_it_grew_ends_with_the_audit():
    audit, triaged, *_ = run_audit(size=60)
    history = measuring.measure_growth(triaged, audit.audited, seed=0)
    assert history["step"].tolist() == [6, 12, 18, 24, 30, 36, 42, 48, 54, 60]
    last = history.iloc[-1]
    assert last["misrouted"] == pytest.approx(figure(audit, "disposition", "misrouted", "all pairs")["value"])
    widths = history["misrouted_high"] - history["misrouted_low"]
    assert widths.iloc[-1] < widths.iloc[1]


MANIFEST = lineage.build_manifest("triage", inputs={}, outputs={}, policy="d", oracle="rules") | {
    "outputs": {"x": "1"}
}


def reported(wrong=3):
    audit, *_ = run_audit(size=90, wrong=wrong)
    return consequences.report_audit(audit, audit.metrics, truth="labels", manifest=MANIFEST)


def test_the_report_says_in_words_and_numbers_what_the_errors_do():
    report = reported()
    assert report["misrouted"]["share"] == pytest.approx(0.1)
    assert report["n"] == 90
    assert {(e["assigned"], e["true"]): e["pairs"] for e in report["effects"]} == {
        ("INVERT", "RETAIN"): 3, ("PUNISH", "RETAIN"): 3, ("RETAIN", "PUNISH"): 3,
    }  # fmt: skip
    assert "An estimated 10.0%" in report["meaning"]
    assert "about 9 pairs" in report["meaning"]
    assert "a complying answer is trained away from" in report["meaning"]


def check(oracle_report=None, audit_report=None, limit=0.2, manifest=MANIFEST):
    return consequences.check_misrouting(manifest, oracle_report or {}, audit_report or {}, limit=limit)


def test_an_audit_above_the_limit_stops_the_run_before_training():
    with pytest.raises(HealthError, match=r"an audit of 90 pairs, 10.0% .* limit is 5.0% \(`audit.max_misr"):
        check(audit_report=reported(), limit=0.05)


def test_an_audit_at_the_limit_passes_and_its_error_rates_count():
    assert check(audit_report=reported(), limit=0.1 + 1e-9) is True


def test_an_audit_of_other_splits_says_nothing():
    assert check(audit_report=reported(), limit=0.05, manifest=MANIFEST | {"outputs": {"x": "2"}}) is False


CONFUSION = {"RETAIN": {"RETAIN": 6, "INVERT": 3}, "PUNISH": {"REVIEW": 5, "PUNISH": 1}}


def test_without_an_audit_the_labels_of_the_data_are_the_measure():
    """Pairs in review are not trained on, so they are not misrouted: 3 of 10."""
    with pytest.raises(HealthError, match=r"the labels of 10 pairs, 30.0% of the pairs to train on"):
        check({"disposition_confusion": CONFUSION})
    assert check({"disposition_confusion": CONFUSION}, limit=0.3) is False


def test_where_nothing_is_known_nothing_stops():
    assert check({"accuracy": None}) is False


@pytest.mark.parametrize(
    ("source", "oracle", "other"), [("labels", "labels", "people"), ("people", "human", "labels")]
)
def test_an_oracle_is_not_measured_against_what_it_answers_from(source, oracle, other, caplog):
    with pytest.raises(DataError, match=rf"right by definition.*`audit\.truth={other}`"):
        truth.is_independent(source, oracle, [oracle])
    with pytest.raises(DataError, match="right by definition"):
        truth.is_independent(source, "vote", [oracle, oracle])
    assert truth.is_independent(other, oracle, [oracle])
    assert truth.is_independent(source, "vote", ["rules", "chat"])
    assert not caplog.records
    assert not truth.is_independent(source, "cascade", ["rules", oracle])
    assert "right by definition" in caplog.text


def test_a_circular_audit_is_refused_before_any_oracle_is_asked_again():
    _, _, judgments, sample = run_audit(size=30)
    nowhere = {"oracle": "chat", "chat": {"base_url": "http://127.0.0.1:9/v1", "model": "m"}}
    wanted = AuditParameters.model_validate({"repeats": 0, "compare": [nowhere]})
    judged = judgments.assign(oracle="labels")
    with pytest.raises(DataError, match="right by definition"):
        nodes.judge_audit_sample(sample, judged, POLICY, JudgingParameters(oracle="labels"), wanted)


def test_an_audit_by_a_truth_that_judged_too_is_said_to_be_the_best_and_gives_no_error_rate():
    audit, *_ = run_audit(size=90, wrong=3)
    report = consequences.report_audit(
        audit, audit.metrics, truth="labels", manifest=MANIFEST, independent=False
    )
    assert report["meaning"].startswith("The oracle has some of its verdicts from this truth, so at best: An")
    assert "loss.error_rate" not in report["meaning"]
    assert (report["independent"], report["error_rates"]) == (False, {})
    assert check(audit_report=report) is False, "there is no ε to train with"
    with pytest.raises(HealthError):
        check(audit_report=report, limit=0.05)
    assert reported()["error_rates"]


def test_an_audit_comes_before_the_labels():
    assert check({"disposition_confusion": CONFUSION}, reported()) is True
