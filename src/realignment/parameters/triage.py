"""Every parameter, typed, checked before any node runs. Kedro builds them from `conf/*/parameters_*.yml`."""

from pydantic import Field

from realignment.parameters.base import Parameters, Share


class TriageParameters(Parameters):
    """Verdict pairs → dispositions."""

    min_confidence: Share = Field(0.5, description="Below this a verdict counts as not known")
    max_punish_share: Share = Field(0.5, description="Above this the run warns of utility collapse")
