"""Parameters of `promotion`: the gate, and the name in the registry."""

from typing import Any

from pydantic import Field, model_validator

from realignment.parameters.base import Parameters
from realignment.parameters.gate import GateParameters

RETIRED = {
    "min_agreement_gain": "{name: agreement_gain, metric: agreement, group: regulated, side: difference, "
    "bound: point, min: VALUE}",
    "min_preference_gain": "{name: preference_gain, metric: preference_accuracy, group: held_out, "
    "side: difference, bound: point, min: VALUE, when: {absent: agreement, group: regulated}}",
    "max_over_refusal": "{name: over_refusal_cap, metric: over_refusal, max: VALUE}",
    "max_kl_drift": "{name: drift, metric: kl_drift, group: retained, max: VALUE}",
    "champion_margin": "{name: champion_agreement, metric: agreement, group: regulated, against: champion, "
    "no_loss_beyond: VALUE, required: false}",
    "max_capability_drop": '{name: capability, metric: capability, group: "task:*", no_loss_beyond: VALUE}',
    "judge": "the field `judge` of each rule",
}
"""Parameters of earlier versions → the rule that says the same now."""


class PromotionParameters(Parameters):
    """The promotion gate, and the name in the registry."""

    registered_model: str = Field(min_length=1, description="Name in MLflow's registry")
    gate: GateParameters = Field(description="What a realigned model must meet to become the champion")

    @model_validator(mode="before")
    @classmethod
    def _name_the_rule_that_replaces(cls, values: Any) -> Any:
        retired = [name for name in RETIRED if isinstance(values, dict) and name in values]
        if retired:
            replacements = "; ".join(f"`promotion.{name}` → {RETIRED[name]}" for name in retired)
            raise ValueError(
                "the gate's conditions are rules now. Take out of the parameters, and write into "
                f"`promotion.gate.rules`: {replacements} (docs/how-to/promotion-gate.md)"
            )
        return values
