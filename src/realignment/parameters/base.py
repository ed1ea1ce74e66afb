"""What the parameters of all stages share: the base class, shares, templates, and the reference model."""

import difflib
import string
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator


class Parameters(BaseModel):
    """Base of all parameter classes: frozen, and a name that is not declared is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _check_names(cls, values: Any) -> Any:
        """Pydantic would refuse the name, and not say which names there are."""
        if not isinstance(values, dict):
            return values
        unknown_names = sorted(set(values) - set(cls.model_fields), key=str)
        if unknown_names:
            name = unknown_names[0]
            matches = difflib.get_close_matches(str(name), cls.model_fields, n=1)
            hint = f"did you mean `{matches[0]}`?" if matches else f"known: {', '.join(cls.model_fields)}"
            raise ValueError(f"there is no parameter `{name}`; {hint}")
        return values


Share = Annotated[float, Field(ge=0, le=1)]
"""A part of a whole, from 0 to 1."""


def _check_placeholders(template: str) -> str:
    try:
        fields = string.Formatter().parse(template)
        names = {name for _, name, _, _ in fields if name is not None}
    except ValueError as error:
        raise ValueError(f"{error}; a brace that is no placeholder is written twice") from error
    if "response" not in names or not names <= {"prompt", "response", "domain"}:
        raise ValueError(
            "expected the placeholder {response} and, optionally, {prompt} and {domain}, found "
            f"{', '.join(sorted(names)) or 'none'}"
        )
    return template


ExchangeTemplate = Annotated[str, Field(min_length=1), AfterValidator(_check_placeholders)]
"""The text that a classifier reads of an exchange, with placeholders for its parts."""


class ModelParameters(Parameters):
    """Source of the reference model M_ref, and how it is loaded."""

    source: str = Field(
        min_length=1,
        description="Folder, Hub id, gguf:FILE, models:/NAME@ALIAS or pypi://DISTRIBUTION==VERSION/MEMBER",
    )
    sha256: str | None = Field(None, description="Expected digest; null accepts any")
    revision: str | None = Field(None, description="Branch, tag or commit of a Hub model")
    folder: str = Field(description="Folder of the fetched models")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="auto: bfloat16 where the hardware multiplies it natively, else float32"
    )
    quantize: Literal["nf4", "int8"] | None = Field(
        None, description="Frozen weights in 4 or 8 bits while a LoRA is trained (QLoRA); needs bitsandbytes"
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        "auto", description="auto: the GPU where torch finds one, else the CPU"
    )
