"""Pairs → judgments: an oracle judges every response, and is measured where the truth is known."""

from realignment.judging.judge import JUDGED_RESPONSES, judge_pairs, list_exchanges, tabulate_judgments
from realignment.judging.oracle_check import (
    check_oracle,
    count_verdicts,
    measure_oracle,
    measure_stability,
    report_oracle,
)

__all__ = [
    "JUDGED_RESPONSES",
    "check_oracle",
    "count_verdicts",
    "judge_pairs",
    "list_exchanges",
    "measure_oracle",
    "measure_stability",
    "report_oracle",
    "tabulate_judgments",
]
