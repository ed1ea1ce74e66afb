"""Pairs → judgments: ask an oracle about every response, and measure it where the truth is known."""

from realignment.judging.judge import JUDGED_RESPONSES, exchanges_of, judge_pairs, tabulate
from realignment.judging.oracle_check import (
    check_oracle,
    count_verdicts,
    measure_oracle,
    repeat_stability,
    report_oracle,
)

__all__ = [
    "JUDGED_RESPONSES",
    "check_oracle",
    "count_verdicts",
    "exchanges_of",
    "judge_pairs",
    "measure_oracle",
    "repeat_stability",
    "report_oracle",
    "tabulate",
]
