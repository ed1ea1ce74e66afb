"""Every parameter, typed, checked before any node runs. Kedro builds them from `conf/*/parameters_*.yml`."""

from pydantic import Field

from realignment.parameters.base import Parameters


class StreamingParameters(Parameters):
    """What `judge_stream` hands on."""

    max_retain: int | None = Field(
        None,
        ge=1,
        description="At most so many RETAIN pairs in `retain_pairs` and `pairs`, drawn at random by `seed`; "
        "null: all",
    )
