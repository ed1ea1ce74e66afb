"""Oracles against each other, and one against itself, on the audited responses."""

from collections.abc import Hashable
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from realignment.audit.sampling import Estimate, Totals, estimate, ratio, tally
from realignment.audit.scores import kappa

SAYS = ("complies", "violates", "unscored")
KEYS = ["pair_id", "response"]


def compare_oracles(
    triaged: pd.DataFrame, judgments: pd.DataFrame, asked: pd.DataFrame, *, seed: int
) -> list[tuple[str, str, str, Estimate]]:
    """Does the oracle repeat itself, and do others agree with it and with each other?

    Args:
        triaged: Every pair with its disposition.
        judgments: What the oracle said of all pairs.
        asked: Judgments of the sample: those of `judgments`' columns, and `round` (above 0: the same oracle
            again); no two other oracles have one name.
        seed: Of the intervals.

    Returns:
        Rows of the audit's table: scope `stability` or `agreement`, metric `agreement` (share of responses
        with the same verdict; unscored twice is the same) or `kappa`.
    """
    rng = np.random.default_rng(seed)
    said = judgments.set_index(KEYS)["complies"]
    rows: list[tuple[str, str, str, Estimate]] = []
    others = {str(judgments["oracle"].iloc[0]): said}
    for (oracle, again), part in asked.groupby(["oracle", "round"], sort=False):
        answers = part.set_index(KEYS)["complies"]
        if again:
            group = f"{oracle}, asked again ({again})"
            rows += [("stability", *row) for row in _agree(triaged, said, answers, group, rng)]
        else:
            others[str(oracle)] = answers
    for (one, first), (other, second) in combinations(others.items(), 2):
        rows += [("agreement", *row) for row in _agree(triaged, first, second, f"{one} and {other}", rng)]
    return rows


def _agree(
    triaged: pd.DataFrame, first: pd.Series, second: pd.Series, group: str, rng: np.random.Generator
) -> list[tuple[str, str, Estimate]]:
    both = pd.concat({"first": first, "second": second}, axis=1, join="inner").reset_index()
    strata = triaged.set_index("pair_id")["disposition"]
    words = zip(both["first"].map(_word), both["second"].map(_word), strict=True)
    cell = pd.Series(list(words), index=both.index, dtype=object)
    audited = both.assign(stratum=both["pair_id"].map(strata), cell=cell)
    responses = both["response"].unique()
    population = pd.concat(
        [triaged[["pair_id"]].assign(stratum=triaged["disposition"], response=name) for name in responses]
    )
    cells = {(one, other): partial(_prior, len(SAYS) ** 2) for one in SAYS for other in SAYS}
    _, counts = tally(population, audited, ["stratum", "response"], "cell", cells)
    return [
        ("agreement", group, estimate(counts, _agreement, rng)),
        ("kappa", group, estimate(counts, lambda totals: kappa(_matrix(totals)), rng)),
    ]


def _word(complies: Any) -> str:
    return SAYS[2] if pd.isna(complies) else SAYS[0] if complies else SAYS[1]


def _prior(cells: int, _: tuple[Hashable, ...]) -> float:
    return 1 / cells


def _matrix(totals: Totals) -> Totals:
    summed = totals.sum(axis=-2)
    return np.asarray(summed.reshape(*summed.shape[:-1], len(SAYS), len(SAYS)))


def _agreement(totals: Totals) -> Totals:
    matrix = _matrix(totals)
    return ratio(np.trace(matrix, axis1=-2, axis2=-1), matrix.sum(axis=(-2, -1)))
