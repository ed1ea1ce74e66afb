"""Loss, adapter, impact weights and training; and how the old model is made."""

from pydantic import Field

from realignment.parameters.base import Parameters
from realignment.parameters.training import LoraParameters


class AlignParameters(Parameters):
    """DPO on the old labels, which makes an M_ref (pipeline `align`)."""

    registered_model: str = Field(min_length=1, description="Name in MLflow's registry")
    beta: float = Field(0.1, gt=0, description="β of DPO")
    learning_rate: float = Field(gt=0, description="At the start of TRL's schedule")
    epochs: float = Field(gt=0, description="Passes over the pairs")
    batch_size: int = Field(8, ge=1, description="Pairs of a step")
    max_length: int = Field(512, ge=8, description="Tokens of prompt and response; longer ones are cut")
    lora: LoraParameters | None = Field(description="The adapter; null trains every parameter")
