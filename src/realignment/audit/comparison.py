"""Compare oracles with each other, and one with itself, on the audited responses."""

from collections.abc import Hashable
from functools import partial
from itertools import combinations, product
from typing import Any

import numpy as np
import pandas as pd

from realignment.audit.sampling import Estimate, Totals, estimate, ratio, tally
from realignment.audit.scores import kappa

ANSWERS = ("complies", "violates", "unscored")
KEYS = ["pair_id", "response"]


def compare_oracles(
    triaged: pd.DataFrame, judgments: pd.DataFrame, repeats: pd.DataFrame, *, seed: int
) -> list[tuple[str, str, str, Estimate]]:
    """Estimate how far the oracle repeats itself, and agrees with other oracles, and they with each other.

    Args:
        triaged: Every pair with its disposition.
        judgments: The oracle's judgments of all pairs.
        repeats: Judgments of the sample: the columns of `judgments`, and `round` (above 0: the same oracle
            again); no two other oracles have the same name.
        seed: Seed of the intervals.

    Returns:
        Rows of the audit's table: scope `stability` or `agreement`, metric `agreement` (share of responses
        with the same verdict; unscored twice is the same) or `kappa`.
    """
    rng = np.random.default_rng(seed)
    verdicts = judgments.set_index(KEYS)["complies"]
    rows: list[tuple[str, str, str, Estimate]] = []
    verdicts_of_oracle = {str(judgments["oracle"].iloc[0]): verdicts}
    for (oracle, number), part in repeats.groupby(["oracle", "round"], sort=False):
        repeated_verdicts = part.set_index(KEYS)["complies"]
        if number:
            group = f"{oracle}, asked again ({number})"
            agreement = _estimate_agreement(triaged, verdicts, repeated_verdicts, group, rng)
            rows += [("stability", *row) for row in agreement]
        else:
            verdicts_of_oracle[str(oracle)] = repeated_verdicts
    for (one, first), (other, second) in combinations(verdicts_of_oracle.items(), 2):
        agreement = _estimate_agreement(triaged, first, second, f"{one} and {other}", rng)
        rows += [("agreement", *row) for row in agreement]
    return rows


def _estimate_agreement(
    triaged: pd.DataFrame, first: pd.Series, second: pd.Series, group: str, rng: np.random.Generator
) -> list[tuple[str, str, Estimate]]:
    both = pd.concat({"first": first, "second": second}, axis=1, join="inner").reset_index()
    strata = triaged.set_index("pair_id")["disposition"]
    # A cell is what both said: one of 3 × 3.
    cell_of_response = list(zip(both["first"].map(_answer), both["second"].map(_answer), strict=True))
    cell = pd.Series(cell_of_response, index=both.index, dtype=object)
    audited = both.assign(stratum=both["pair_id"].map(strata), cell=cell)
    responses = both["response"].unique()
    population = pd.concat(
        [triaged[["pair_id"]].assign(stratum=triaged["disposition"], response=name) for name in responses]
    )
    cells = {cell: partial(_prior, len(ANSWERS) ** 2) for cell in product(ANSWERS, ANSWERS)}
    _, counts = tally(population, audited, ["stratum", "response"], "cell", cells)
    return [
        ("agreement", group, estimate(counts, _agreement, rng)),
        ("kappa", group, estimate(counts, lambda totals: kappa(_matrix(totals)), rng)),
    ]


def _answer(complies: Any) -> str:
    if pd.isna(complies):
        return "unscored"
    return "complies" if complies else "violates"


def _prior(cells: int, _: tuple[Hashable, ...]) -> float:
    return 1 / cells


def _matrix(totals: Totals) -> Totals:
    """First × second oracle, shape (…, 3, 3), from totals of shape (…, S, 9)."""
    summed = totals.sum(axis=-2)
    return np.asarray(summed.reshape(*summed.shape[:-1], len(ANSWERS), len(ANSWERS)))


def _agreement(totals: Totals) -> Totals:
    matrix = _matrix(totals)
    return ratio(np.trace(matrix, axis1=-2, axis2=-1), matrix.sum(axis=(-2, -1)))
