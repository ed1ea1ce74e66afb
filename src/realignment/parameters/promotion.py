"""Parameters of `promotion`: the limits of the gate, and the name in the registry."""

from typing import Literal

from pydantic import Field

from realignment.parameters.base import Parameters, Share


class PromotionParameters(Parameters):
    """Limits of the promotion gate, and the name in the registry."""

    registered_model: str = Field(min_length=1, description="Name in MLflow's registry")
    judge: Literal["rules", "classifier"] | None = Field(
        None, description="The judge whose verdicts count; null: all of them"
    )
    min_agreement_gain: Share = Field(description="Smallest gain of agreement with the new policy")
    min_preference_gain: Share = Field(
        description="Smallest gain of held-out preference accuracy, where agreement was not measured"
    )
    max_over_refusal: Share = Field(
        description="Largest share of prompts outside of the policy to which it is applied, unless the share "
        "was as large before"
    )
    max_kl_drift: float = Field(
        gt=0, description="Largest KL divergence on retained held-out pairs, in nats per token"
    )
    champion_margin: Share = Field(
        0.1,
        description="Against the champion, by the same judge on the same prompts: the largest loss of "
        "agreement, and rise of over-refusal, that the paired 95 % interval may include",
    )
    max_capability_drop: Share = Field(
        description="Largest loss of accuracy on the capability questions that is not within its interval"
    )
