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
    held_out_share: float = Field(
        0.1,
        ge=0,
        lt=0.9,
        description="Share of the prompts that are kept from training, to measure whether the old labels "
        "were learnt; 0: none, and it is not measured",
    )
    lora: LoraParameters | None = Field(description="The adapter; null trains every parameter")
