"""Parameters of `judge_stream`: how many pairs of a large table it hands on."""

from pydantic import Field

from realignment.parameters.base import Parameters


class StreamingParameters(Parameters):
    """Output of `judge_stream`."""

    max_retain: int | None = Field(
        None,
        ge=1,
        description="Largest number of RETAIN pairs in `retain_pairs` and `pairs`, drawn at random by "
        "`seed`; null: all",
    )
