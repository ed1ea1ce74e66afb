"""Answers of models that differ in length, a judge of length, and the report of its comparisons."""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from realignment.evaluation.win_rates.comparators import Better, Preference
from realignment.evaluation.win_rates.comparing import list_positions
from realignment.evaluation.win_rates.figures import report_win_rates
from realignment.policy import parse_policy

RULES = [{"id": "no-sell", "description": "No order.", "check": {"kind": "forbidden", "patterns": ["sell"]}}]
POLICY = parse_policy({"name": "advice", "version": "2", "text": "Be careful.", "rules": RULES}, "test")
FIRST, SECOND, TIE = Better.FIRST, Better.SECOND, Better.TIE


@dataclass(frozen=True)
class Longer:
    """Prefers the longer answer; ties where both are as long. A judge that is there, and in both orders."""

    symmetric: bool = False
    name: str = "longer"
    asked: list = field(default_factory=list)

    def __call__(self, pairs, policy):
        self.asked.extend(pairs)
        return [Preference(self.choose(len(pair.first), len(pair.second))) for pair in pairs]

    def choose(self, first, second):
        if first == second:
            return TIE
        return FIRST if first > second else SECOND


def make_answers(**columns):
    """Answers of models to made-up prompts: every other one is regulated."""
    n = len(next(iter(columns.values())))
    kinds = ["regulated" if number % 2 else "ordinary" for number in range(n)]
    table = pd.DataFrame(
        {"prompt_id": [f"p{i}" for i in range(n)], "prompt": [f"Prompt {i}?" for i in range(n)]}
    )
    return table.assign(domain=["law", None] * (n // 2) + ["law"] * (n % 2), kind=kinds, **columns)


def random_answers(n=40, models=("before", "after"), seed=0):
    rng = np.random.default_rng(seed)
    # Models differ in the length of their answers; some are equal.
    return make_answers(
        **{model: ["x" * int(k) for k in rng.integers(1, 5 + i, n)] for i, model in enumerate(models)}
    )


def report(comparisons, **settings):
    positions = list_positions(comparisons)
    return report_win_rates(
        comparisons, **({"judge": "longer", "positions": positions, "resamples": 400, "seed": 3} | settings)
    )
