"""Rules are checked before anything runs; a parameter of before is answered by the rule to write."""

import pytest
from gate_tables import default_parameters, default_rules, rule
from pydantic import ValidationError

from realignment.parameters import PromotionParameters
from realignment.parameters.promotion import RETIRED


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "has no limit; expected exactly one of min, max, no_loss_beyond, no_rise_beyond"),
        ({"min": 0, "max": 1}, "has min and max; expected exactly one"),
        ({"max": float("nan")}, "is nan; expected a number"),
        ({"no_loss_beyond": 0.1, "side": "after"}, "compares the low bound of the difference"),
        ({"no_rise_beyond": 0.1, "bound": "point"}, "compares the high bound of the difference"),
        ({"no_loss_beyond": -0.1}, "greater than or equal to 0"),
        ({"max": 1, "juge": "rules"}, "did you mean `judge`"),
        ({"max": 1, "when": {}}, "needs one of `present: METRIC` and `absent: METRIC`"),
        ({"max": 1, "when": {"present": "a", "absent": "b"}}, "and only one"),
    ],
)
def test_a_rule_that_cannot_be_read_is_refused(fields, message):
    with pytest.raises(ValidationError, match=message):
        rule(**fields)


def test_a_gate_has_rules_with_names_of_their_own():
    with pytest.raises(ValidationError, match="several rules have the name rule"):
        default_parameters(rules=[rule(max=1), rule(min=0)])
    with pytest.raises(ValidationError, match="at least 1 item"):
        default_parameters(rules=[])


@pytest.mark.parametrize("name", sorted(RETIRED))
def test_a_parameter_of_an_earlier_version_is_answered_by_the_rule_that_replaces_it(name):
    values = default_parameters().model_dump() | {name: 0.1}
    with pytest.raises(ValidationError) as error:
        PromotionParameters(**values)
    assert "the gate's conditions are rules now" in str(error.value)
    assert f"`promotion.{name}` → {RETIRED[name]}" in str(error.value)


@pytest.mark.parametrize("name", sorted(set(RETIRED) - {"judge"}))
def test_the_rule_that_replaces_a_parameter_is_a_rule(name):
    import yaml

    fields = yaml.safe_load(RETIRED[name].replace("VALUE", "0.1"))
    assert rule(**fields).metric == fields["metric"]


def test_the_default_rules_ask_for_gain_floors_costs_and_the_champion():
    rules = {found.name: found for found in default_rules()}
    assert rules["agreement_by_domain"].group == "domain:*"
    assert rules["capability"].group == "task:*"
    assert {found.metric for found in rules.values() if found.against == "champion"} == {
        "agreement", "over_refusal"
    }  # fmt: skip
    assert not any(found.bound == "point" for found in rules.values() if found.is_margin)
    optional = {name for name, found in rules.items() if not found.required}
    assert optional == {"answers_cut", "attack_success", "champion_agreement", "champion_over_refusal"}
