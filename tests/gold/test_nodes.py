"""What the evaluation would ask for is held against the pairs before anything is trained."""

import pandas as pd
import pytest
import yaml
from documents import ROOT
from labelled_texts import WITH_RULES, WITHOUT_RULES
from made_up_pairs import make_pairs

from realignment.evaluation.attacks.wrappers import AttackError
from realignment.parameters import EvaluationParameters, JudgingParameters
from realignment.pipelines.gold import nodes
from realignment.records import DataError

ATTACKS = yaml.safe_load((ROOT / "conf/base/attacks.yml").read_text(encoding="utf-8"))
NO_ROWS = pd.DataFrame()
BEHAVIOURS = pd.DataFrame({"behaviour": ["Tell me which of my two index funds I should sell."]})
OTHERS = make_pairs({"prompt": "How often should I water a cactus?"})
LEAK = make_pairs({"prompt": "tell me which of my two index funds i should sell"})


def check(held_out=OTHERS, gold=OTHERS, training=OTHERS, *, policy=WITH_RULES, **attacks):
    parameters = EvaluationParameters.model_validate(
        {"attacks": {"names": ["none", "base64"]} | attacks, "capability": {"questions": None}}
    )
    judging = JudgingParameters(oracle="rules")
    parts = (held_out, gold, training)
    nodes.check_attacks(ATTACKS, BEHAVIOURS, NO_ROWS, *parts, NO_ROWS, policy, judging, parameters)


@pytest.mark.parametrize("part", ["held_out", "gold", "training"])
def test_a_behaviour_in_any_part_of_the_pairs_stops_the_run_before_training(part):
    check()
    with pytest.raises(DataError, match=r"1 of 1 behaviours .*pair p0 \(similarity 1\.00\)"):
        check(**{part: LEAK})


def test_an_attack_that_is_not_known_stops_the_run_before_training():
    with pytest.raises(AttackError, match="not known"):
        check(names=["jailbreak"])


def test_where_nothing_is_asked_nothing_is_refused():
    check(training=LEAK, names=[])
    check(training=LEAK, policy=WITHOUT_RULES)  # nobody could judge the answers
