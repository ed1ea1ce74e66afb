"""Parameters of `align`: how a reference model is made by DPO on the old labels."""

from pydantic import Field

from realignment.parameters.base import Parameters
from realignment.parameters.training import LoraParameters


class AlignParameters(Parameters):
    """DPO on the old labels, which makes a reference model M_ref (pipeline `align`)."""

    registered_model: str = Field(min_length=1, description="Name in MLflow's registry")
    beta: float = Field(0.1, gt=0, description="β of DPO")
    learning_rate: float = Field(gt=0, description="Learning rate at the start of TRL's schedule")
    epochs: float = Field(gt=0, description="Passes over the pairs")
    batch_size: int = Field(8, ge=1, description="Pairs per step")
    max_length: int = Field(512, ge=8, description="Tokens of prompt and response; longer ones are cut")
    lora: LoraParameters | None = Field(description="The adapter; null trains every parameter")
