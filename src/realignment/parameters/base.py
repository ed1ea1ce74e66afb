"""What the parameters of every stage stand on."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class Parameters(BaseModel):
    """Frozen, and a name that is not listed here is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Share = Annotated[float, Field(ge=0, le=1)]


class ModelParameters(Parameters):
    """Where M_ref comes from, and how it is loaded."""

    source: str = Field(
        min_length=1,
        description="Folder, Hub id, gguf:FILE, models:/NAME@ALIAS or pypi://DISTRIBUTION==VERSION/MEMBER",
    )
    sha256: str | None = Field(None, description="Expected digest; null accepts any")
    revision: str | None = Field(None, description="Branch, tag or commit of a Hub model")
    folder: str = Field(description="Where fetched models are kept")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="auto: bfloat16 where the hardware multiplies it natively, else float32"
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        "auto", description="auto: the GPU where torch finds one, else the CPU"
    )
