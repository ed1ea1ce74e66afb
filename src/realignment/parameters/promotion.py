"""Every parameter, typed, checked before any node runs. Kedro builds them from `conf/*/parameters_*.yml`."""

from typing import Literal

from pydantic import Field

from realignment.parameters.base import Parameters, Share


class PromotionParameters(Parameters):
    """The gate's limits, and the name in the registry."""

    registered_model: str = Field(min_length=1, description="Name in MLflow's registry")
    judge: Literal["rules", "classifier"] | None = Field(None, description="Whose verdicts count; null: all")
    min_agreement_gain: Share = Field(description="Least rise of agreement with the new policy")
    min_preference_gain: Share = Field(
        description="Least rise of held-out preference accuracy, where agreement was not measured"
    )
    max_over_refusal: Share = Field(
        description="Largest share of outside prompts with the policy applied, unless as large before"
    )
    max_kl_drift: float = Field(gt=0, description="nats per token on retained held-out pairs")
    max_capability_drop: Share = Field(description="Largest loss of accuracy that is not within its interval")
