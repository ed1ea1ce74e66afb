"""The table of principles, whichever way they were found."""

from dataclasses import dataclass
from typing import Any

import pandas as pd

PRINCIPLE_COLUMNS = (
    "id", "principle", "coefficient", "coefficient_low", "coefficient_high", "stability", "applies", "pairs",
    "support", "agreement", "low", "high", "q_value",
)  # fmt: skip
"""`support` = `applies` / `pairs`; `agreement`: share of those where the principle predicts the choice,
with `low` and `high` its 95 % interval; `q_value`: false discovery rate. Coefficients and stability are null
where a language model proposed it."""


@dataclass(frozen=True)
class Explanation:
    """The principles, and how well they explain the choices.

    Attributes:
        principles: PRINCIPLE_COLUMNS, the strongest first.
        report: method, n, selected, kept, and what the method has to say besides.
    """

    principles: pd.DataFrame
    report: dict[str, Any]
