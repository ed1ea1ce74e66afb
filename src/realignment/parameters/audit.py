"""Every parameter, typed, checked before any node runs. Kedro builds them from `conf/*/parameters_*.yml`."""

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
    size: int = Field(100, ge=10, description="Pairs to audit, equally many of every disposition")
    repeats: int = Field(1, ge=0, description="Times that the oracle judges the audited responses again")
    compare: tuple[OracleParameters, ...] = Field(
        (), description="Other oracles that judge the audited responses too, each with its section"
    )
    max_misrouted: Share = Field(
        0.2,
        description="A larger share of pairs with a wrong disposition, as far as it is known, stops the run "
        "before training (paper: TPA falls from 70.7 to 61.5 at 20 % oracle noise)",
    )
