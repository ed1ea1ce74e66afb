"""Parameters of `triage`: how sure a verdict must be, and how many PUNISH pairs are many."""

from pydantic import Field

from realignment.parameters.base import Parameters, Share


class TriageParameters(Parameters):
    """Limits of triage, which gives every pair a disposition."""

    min_confidence: Share = Field(0.5, description="A verdict of less confidence counts as not known")
    max_punish_share: Share = Field(
        0.5, description="If a larger share of the pairs is PUNISH, the run warns of utility collapse"
    )
