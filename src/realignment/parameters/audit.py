"""Parameters of `audit`: how the oracle is audited, and how wrong it may be."""

from typing import Literal

from pydantic import Field

from realignment.parameters.base import Parameters, Share
from realignment.parameters.oracles import OracleParameters


class AuditParameters(Parameters):
    """How the oracle is audited, and how wrong it may be."""

    truth: Literal["labels", "people"] = Field(
        "labels",
        description="labels: the columns chosen_complies, rejected_complies; people: imported verdicts",
    )
    size: int = Field(100, ge=10, description="Pairs to audit, the same number of every disposition")
    repeats: int = Field(1, ge=0, description="How many times the oracle judges the audited responses again")
    compare: tuple[OracleParameters, ...] = Field(
        (), description="Other oracles that judge the audited responses too, each with its section"
    )
    max_misrouted: Share = Field(
        0.2,
        description="If the measured share of pairs with a wrong disposition is larger, the run stops before "
        "training (paper: TPA falls from 70.7 to 61.5 at 20 % oracle noise)",
    )
