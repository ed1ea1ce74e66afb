"""Bradley–Terry strengths: one number per model, from who won against whom."""

import numpy as np
import numpy.typing as npt

from realignment.records import DataError

Wins = npt.NDArray[np.float64]

PRIOR = 0.5
"""Wins that every model gets against every other one, where the likelihood has no maximum without them."""

_TOLERANCE = 1e-10
"""Largest change of a strength, in nats, at which the iteration ends."""
_MAX_ITERATIONS = 50_000


def fit_strengths(wins: Wins) -> Wins:
    """Fit strengths θ with P(i beats j) = σ(θ_i − θ_j), by maximum likelihood; a tie is half a win for both.

    Bradley and Terry 1952. The MM iteration of Hunter 2004, Annals of Statistics 32:384-406, in p = exp(θ):
    p_i ← (wins of i) / Σ_j n_ij / (p_i + p_j), where n_ij is the number of comparisons of i and j.

    The maximum exists only where no model, or group of models, wins or loses all comparisons with the others
    (see `is_bounded`). Else a symmetric prior is added, and only then: `PRIOR` wins of each model against
    each other one. The strengths are then finite, and their distance says what half a win is worth.

    Args:
        wins: Wins of model i over model j, ties counted half, shape (…, M, M): one or many tables.

    Returns:
        θ in nats, with mean 0 over the models, shape (…, M).

    Raises:
        DataError: The iteration does not converge.
    """
    n_models = wins.shape[-1]
    others = 1 - np.eye(n_models)
    wins = wins * others  # a model does not play against itself
    unbounded = ~is_bounded(wins)
    wins = wins + PRIOR * others * unbounded[..., None, None]
    counts = wins + np.swapaxes(wins, -1, -2)  # n_ij
    totals = wins.sum(-1)
    theta: Wins = np.zeros(wins.shape[:-1])
    for _ in range(_MAX_ITERATIONS):
        p = np.exp(theta)
        sums = (counts / (p[..., :, None] + p[..., None, :])).sum(-1)
        updated: Wins = np.log(totals / sums) if n_models > 1 else theta
        updated = updated - updated.mean(-1, keepdims=True)
        change = np.abs(updated - theta).max(initial=0.0)
        theta = updated
        if change < _TOLERANCE:
            return theta
    raise DataError(
        f"The strengths of {n_models} models did not converge in {_MAX_ITERATIONS} steps: some models are "
        "almost never compared with the others. Compare them on more prompts."
    )


def is_bounded(wins: Wins) -> npt.NDArray[np.bool_]:
    """Return whether the likelihood has a maximum: each model can be reached from each other one by wins.

    Ford 1957, American Mathematical Monthly 64(8):28-33.

    Args:
        wins: As of `fit_strengths`, shape (…, M, M).

    Returns:
        Shape (…).
    """
    n_models = wins.shape[-1]
    reach = (wins > 0) | np.eye(n_models, dtype=bool)
    for _ in range(n_models.bit_length()):  # squared so often, paths of M steps are found
        reach = (reach.astype(np.int64) @ reach.astype(np.int64)) > 0
    return np.asarray(reach.all((-1, -2)))


def rank_strengths(strengths: Wins) -> list[int]:
    """Return the rank of each model, 1 for the strongest; models of equal strength share the better rank.

    Args:
        strengths: θ of M models, shape (M,).

    Returns:
        M ranks.
    """
    rounded = np.round(strengths, 9)
    return [int((rounded > strength).sum()) + 1 for strength in rounded]
