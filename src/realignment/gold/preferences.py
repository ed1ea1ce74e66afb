"""State the preference of each gold pair: which response the new policy prefers to which."""

import numpy as np
import pandas as pd

from realignment.records import DataError, Disposition

PREFERRED = {
    Disposition.RETAIN: "chosen",
    Disposition.INVERT: "rejected",
    Disposition.PUNISH: "correction",
}
"""Column of the preferred response."""

DISPREFERRED = {
    Disposition.RETAIN: "rejected",
    Disposition.INVERT: "chosen",
    Disposition.PUNISH: "chosen",
}
"""Column of the dispreferred response."""


def state_preferences(gold: pd.DataFrame, pool: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Add what is preferred to what: RETAIN chosen ≻ rejected, INVERT rejected ≻ chosen, PUNISH y⁺ ≻ chosen.

    y⁺ is the correction. A PUNISH pair without one gets a random compliant response to another prompt, as
    published (arXiv:2511.02623).

    Args:
        gold: The gold pairs.
        pool: Pairs whose compliant responses are drawn from; none of a prompt of a PUNISH pair in `gold`.
        rng: Of the draw.

    Returns:
        The gold pairs with columns `preferred`, `dispreferred`.

    Raises:
        DataError: A compliant response is needed, and the pool has none.
    """
    records = gold.to_dict("records")
    dispositions = [Disposition(row["disposition"]) for row in records]
    preferred = pd.Series(
        [row[PREFERRED[kind]] for row, kind in zip(records, dispositions, strict=True)],
        index=gold.index,
        dtype=object,
    )
    is_missing = preferred.isna()
    if is_missing.any():
        preferred[is_missing] = _draw_compliant(pool, int(is_missing.sum()), rng)
    dispreferred = [row[DISPREFERRED[kind]] for row, kind in zip(records, dispositions, strict=True)]
    return gold.assign(preferred=preferred, dispreferred=dispreferred)


def _draw_compliant(pool: pd.DataFrame, count: int, rng: np.random.Generator) -> list[str]:
    """Draw compliant responses with replacement: chosen of RETAIN pairs, rejected of INVERT pairs."""
    compliant = [
        *pool.loc[pool["disposition"] == Disposition.RETAIN, "chosen"],
        *pool.loc[pool["disposition"] == Disposition.INVERT, "rejected"],
    ]
    if not compliant:
        raise DataError(
            f"{count} PUNISH pairs of the gold batch have no correction, and no response to another prompt "
            "complies: the pairs that are not held out have neither RETAIN nor INVERT. Set `gold.punished: "
            "correction`, or give more pairs."
        )
    return [compliant[position] for position in rng.integers(len(compliant), size=count)]
