"""The table of principles, which both methods of inference return."""

from dataclasses import dataclass
from typing import Any

import pandas as pd

PRINCIPLE_COLUMNS = (
    "id", "principle", "coefficient", "coefficient_low", "coefficient_high", "stability", "applies", "pairs",
    "support", "agreement", "low", "high", "q_value",
)  # fmt: skip
"""`applies`: pairs that the principle tells apart; `support` = `applies` / `pairs`; `agreement`: the share of
those whose choice it predicts, with `low` and `high` its 95 % interval; `q_value`: false discovery rate.
Coefficients and stability are null where a language model proposed the principle."""


@dataclass(frozen=True)
class Explanation:
    """The principles, and how well they explain the choices.

    Attributes:
        principles: PRINCIPLE_COLUMNS, the strongest first.
        report: method, n, selected, kept, and further numbers of the method.
    """

    principles: pd.DataFrame
    report: dict[str, Any]
