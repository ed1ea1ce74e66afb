"""Who judges, what each judge has seen, how good it is, and whose figure is the headline."""

import pandas as pd
import pytest
from labelled_texts import ANSWERS, MANY_ANSWERS, WITH_RULES, WITHOUT_RULES, answered
from pydantic import ValidationError
from servers import Script, scripted, unused_url

from realignment.evaluation import judges
from realignment.oracles.rules import NoRulesError
from realignment.parameters import EvaluationParameters, JudgingParameters
from realignment.pipelines.evaluation import nodes
from realignment.records import DataError, Exchange
from realignment.statistics import wilson_interval

NO_ANSWERS = pd.DataFrame()
RULES_LABELLED = JudgingParameters(oracle="rules")
LABELS_LABELLED = JudgingParameters(oracle="labels")


def settings(**changes):
    return EvaluationParameters.model_validate(
        {"folds": 3, "capability": {"questions": None}, "fit_classifier": True} | changes
    )


def choose(answers, policy=WITH_RULES, judging=RULES_LABELLED, **changes):
    parameters = settings(**changes)
    chosen = judges.build_judges(answers, policy, judging=judging, parameters=parameters, seed=0)
    report = judges.measure_judges(chosen, answers, policy, folds=parameters.folds, seed=0)
    return chosen.oracles, report


def test_the_rules_judge_and_a_classifier_that_learned_from_answers_of_models_alone():
    oracles, report = choose(MANY_ANSWERS)
    assert [oracle.name for oracle in oracles] == report["judges"] == ["rules", "classifier"]
    verdict = oracles[1]([Exchange("?", "You must sell wines today", "money")], WITH_RULES)[0]
    assert verdict.complies is False
    assert report["accuracy"]["rules"] == {
        "n": 22, "accuracy": 1.0, "interval": list(wilson_interval(22, 22))
    }  # fmt: skip


def test_the_classifier_is_measured_on_folds_that_it_did_not_learn_from():
    # Twelve texts, each once compliant and once not: out of fold nobody can know better than half.
    coin = answered(
        *((f"Word {n}.", "money", True) for n in range(12)),
        *((f"Word {n}.", "money", False) for n in range(12)),
    )
    _, report = choose(coin)
    assert report["accuracy"]["classifier"]["accuracy"] <= 0.75


def test_labels_under_another_policy_teach_and_measure_no_judge():
    oracles, report = choose(MANY_ANSWERS.assign(policy="a-0"))
    assert [oracle.name for oracle in oracles] == ["rules"]
    assert "No classifier is fitted as a judge: The classifier needs" in report["note"]
    assert report["accuracy"] == {"rules": None}
    assert report["quality"] == {"rules": {}}


def test_where_the_labels_of_the_pairs_made_the_splits_the_classifier_has_not_seen_them():
    for judging in (RULES_LABELLED, LABELS_LABELLED):
        oracles, report = choose(MANY_ANSWERS, judging=judging)
        assert "classifier" in report["judges"]
        assert "classifier" not in report["seen"]
        # It knows the texts of the labelled answers, and no others.
        assert len(oracles[1].held_out or MANY_ANSWERS) <= len(MANY_ANSWERS)


def test_a_judge_that_labelled_the_pairs_says_so():
    assert choose(NO_ANSWERS)[1]["seen"] == {"rules": judges.LABELLED_THE_PAIRS}
    vote = {"oracle": "vote", "vote": {"oracles": [{"oracle": "rules"}, {"oracle": "labels"}]}}
    assert choose(NO_ANSWERS, judging=JudgingParameters.model_validate(vote))[1]["seen"] == {
        "rules": judges.LABELLED_THE_PAIRS
    }
    assert choose(NO_ANSWERS, judging=LABELS_LABELLED)[1]["seen"] == {}


def test_a_classifier_is_no_judge_of_what_a_classifier_has_labelled(tmp_path):
    judging = JudgingParameters.model_validate(
        {"oracle": "classifier", "classifier": {"source": "c.joblib", "folder": str(tmp_path)}}
    )
    oracles, report = choose(MANY_ANSWERS, judging=judging)
    assert [oracle.name for oracle in oracles] == ["rules"]
    assert report["note"] == judges.NOT_INDEPENDENT
    assert not judges.can_judge(MANY_ANSWERS, WITHOUT_RULES, judging, settings())


def test_a_policy_without_rules_is_judged_by_whatever_can_judge():
    oracles, report = choose(MANY_ANSWERS, WITHOUT_RULES)
    assert [oracle.name for oracle in oracles] == ["classifier"]
    assert "note" not in report
    nobody, report = choose(NO_ANSWERS, WITHOUT_RULES)
    assert nobody == ()
    assert report["note"].startswith("No judge: the policy has no machine-checkable rules")


@pytest.mark.parametrize(
    ("answers", "policy", "changes"),
    [
        (NO_ANSWERS, WITH_RULES, {}),
        (NO_ANSWERS, WITHOUT_RULES, {}),
        (MANY_ANSWERS, WITHOUT_RULES, {}),
        (MANY_ANSWERS, WITHOUT_RULES, {"fit_classifier": False}),
        (MANY_ANSWERS, WITH_RULES, {"judges": [], "fit_classifier": False}),
    ],
)
def test_whether_anything_can_judge_is_known_before_answers_are_generated(answers, policy, changes):
    can = judges.can_judge(answers, policy, RULES_LABELLED, settings(**changes))
    assert can == bool(choose(answers, policy, **changes)[0])


def test_rules_that_a_policy_does_not_have_are_missed_before_answers_are_generated():
    for named in ({"oracle": "rules"}, {"oracle": "vote", "vote": {"oracles": [{"oracle": "rules"}]}}):
        with pytest.raises(NoRulesError, match="has no rules"):
            judges.can_judge(NO_ANSWERS, WITHOUT_RULES, RULES_LABELLED, settings(judges=[named]))


def test_two_judges_of_one_name_are_refused():
    with pytest.raises(DataError, match=r"Several judges have the name rules\. Leave one out"):
        choose(NO_ANSWERS, judges=[{"oracle": "rules"}, {"oracle": "rules"}])


def test_labels_cannot_judge_answers():
    vote = {"oracle": "vote", "vote": {"oracles": [{"oracle": "rules"}, {"oracle": "labels"}]}}
    for judge in ({"oracle": "labels"}, vote):
        with pytest.raises(ValidationError, match="`labels` cannot judge answers"):
            settings(judges=[judge])


def test_judges_share_the_verdict_store_of_the_pairs_unless_they_name_one(tmp_path):
    chat = {"oracle": "chat", "chat": {"base_url": "http://127.0.0.1:9/v1", "model": "m"}}
    judging = RULES_LABELLED.model_copy(update={"verdict_store": str(tmp_path / "pairs.sqlite")})
    own = {**chat, "verdict_store": str(tmp_path / "own.sqlite")}
    for judge, file in ((chat, "pairs.sqlite"), (own, "own.sqlite")):
        (oracle,), _ = choose(NO_ANSWERS, judging=judging, judges=[judge])
        assert oracle.store.path.name == file


def test_the_errors_of_each_judge_are_counted_by_domain():
    others = answered(("You must sell the ball.", "sport", True), ("In general terms.", None, False))
    _, report = choose(pd.concat([ANSWERS, others], ignore_index=True), fit_classifier=False)
    rules = report["quality"]["rules"]
    assert rules["money"] == {
        "true_positives": 1, "false_negatives": 1, "true_negatives": 1, "false_positives": 1
    }  # fmt: skip
    assert rules["sport"]["false_negatives"] == rules[""]["false_positives"] == 1


def counts(sensitivity, specificity, n=50):
    right, caught = round(n * sensitivity), round(n * specificity)
    return {
        "true_positives": right, "false_negatives": n - right,
        "true_negatives": caught, "false_positives": n - caught,
    }  # fmt: skip


PROMPTS = pd.DataFrame({"kind": ["regulated", "ordinary", "look_alike"], "domain": ["money", "sport", None]})


def report(quality, seen=()):
    return {"judges": list(quality), "quality": quality, "seen": dict.fromkeys(seen, "why")}


def test_the_headline_is_the_judge_that_is_measured_best_on_the_kind_of_prompt():
    quality = {
        "a": {"money": counts(0.9, 0.9), "sport": counts(0.9, 0.4), "": counts(0.9, 0.4)},
        "b": {"money": counts(1.0, 0.5), "sport": counts(0.8, 0.8), "": counts(0.8, 0.8)},
    }
    headlines = judges.pick_headlines(PROMPTS, report(quality, seen=["a"]))
    assert headlines == {
        "agreement": {"judge": "a", "sensitivity": 0.9, "specificity": 0.9, "n": 100},
        "over_refusal": {"judge": "b", "sensitivity": 0.8, "specificity": 0.8, "n": 200},
    }


def test_a_judge_that_says_what_most_answers_are_is_not_the_best():
    # Nine in ten comply: to call every answer compliant is right more often, and tells nothing.
    always = {"true_positives": 90, "false_negatives": 0, "true_negatives": 0, "false_positives": 10}
    careful = {"true_positives": 72, "false_negatives": 18, "true_negatives": 9, "false_positives": 1}
    headlines = judges.pick_headlines(
        PROMPTS, report({"always": {"money": always}, "careful": {"money": careful}})
    )
    assert headlines["agreement"]["judge"] == "careful"


def test_without_labels_enough_a_judge_that_has_seen_nothing_leads_and_no_quality_is_claimed():
    few = {"money": counts(1.0, 1.0, n=4)}
    headlines = judges.pick_headlines(PROMPTS, report({"a": few, "b": {}}, seen=["a"]))
    assert headlines["agreement"] == {"judge": "b", "sensitivity": None, "specificity": None, "n": 0}
    headlines = judges.pick_headlines(PROMPTS, report({"a": few}, seen=["a"]))
    assert headlines["over_refusal"]["judge"] == "a"
    assert judges.pick_headlines(PROMPTS, report({})) == {}


def served(url, **changes):
    """Settings of a judge behind a server, the only one."""
    judge = {"oracle": "chat", "chat": {"base_url": url, "model": "m"}}
    return settings(judges=[judge], fit_classifier=False, **changes)


def test_judges_are_measured_where_their_errors_are_reported_and_not_where_attacks_are_judged():
    attacks = pd.DataFrame(
        {"prompt": ["Sell?", "Buy?"], "domain": "money", "before": ["Yes.", "No."], "after": ["Hm.", "No."]}
    )
    prompts = attacks.assign(kind="regulated", origin=None)
    arguments = (ANSWERS, WITH_RULES, RULES_LABELLED)
    script = Script()
    with scripted(script) as url:
        nodes.judge_attacks(attacks, *arguments, served(url), 0)
        assert {asked["response"] for asked in script.asked()} == {"Yes.", "No.", "Hm."}
        script.bodies.clear()
        _, report = nodes.judge_answers(prompts, *arguments, served(url), 0)
    labelled = [
        asked["response"] for asked in script.asked() if asked["response"] in set(ANSWERS["response"])
    ]
    assert sorted(labelled) == sorted(ANSWERS["response"]), "each labelled answer is judged once"
    assert report["accuracy"]["chat m"]["n"] == len(ANSWERS)


def test_building_judges_asks_nobody():
    url = unused_url()
    chosen = judges.build_judges(ANSWERS, WITH_RULES, judging=RULES_LABELLED, parameters=served(url), seed=0)
    assert [oracle.name for oracle in chosen.oracles] == ["chat m"]
