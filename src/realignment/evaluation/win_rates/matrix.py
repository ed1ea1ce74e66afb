"""Win rates of every two models and Bradley–Terry strengths, with intervals by a bootstrap over prompts.

A tie is half a win. Prompts are the clusters: several answers to one prompt are no independent trials.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from realignment.evaluation.win_rates.bradley_terry import fit_strengths, is_bounded, rank_strengths
from realignment.statistics import Interval, mcnemar_p, wilson_interval

_BATCH = 200
"""Resamples that are in memory at a time."""


def sum_wins(comparisons: pd.DataFrame, models: Sequence[str]) -> npt.NDArray[np.float64]:
    """Sum the wins of every model over every other one by prompt: prompts are what is resampled.

    Args:
        comparisons: Scored ones.
        models: Names of M models.

    Returns:
        Wins of model i over model j, ties half, shape (C, M, M) for C prompts in the order of their texts.
    """
    codes, prompts = pd.factorize(comparisons["prompt"], sort=True)
    first = comparisons["first_model"].map(list(models).index).to_numpy(int)
    second = comparisons["second_model"].map(list(models).index).to_numpy(int)
    score = comparisons["score"].to_numpy(float)
    wins = np.zeros((len(prompts), len(models), len(models)))
    np.add.at(wins, (codes, first, second), score)
    np.add.at(wins, (codes, second, first), 1 - score)
    return wins


def report_group(
    comparisons: pd.DataFrame, models: Sequence[str], resamples: int, seed: int
) -> dict[str, Any]:
    """Report the win rate of every model against every other one, and their strengths.

    Args:
        comparisons: Scored ones of one group of prompts.
        models: Names of M models.
        resamples: Bootstrap resamples of prompts.
        seed: Seed of the resamples.

    Returns:
        `win_rates` (model → opponent → figures), `strengths` (model → figures) and `strengths_bounded`.
    """
    wins = sum_wins(comparisons, models)  # (C, M, M)
    resampled = _resample(wins, resamples, seed)  # (R, M, M)
    rates: dict[str, dict[str, Any]] = {model: {} for model in models}
    for i, j in combinations(range(len(models)), 2):
        figures = _compare_models(comparisons, (models[i], models[j]), wins[:, i, j], wins[:, j, i],
                                  resampled[:, i, j], resampled[:, j, i])  # fmt: skip
        if figures is not None:
            rates[models[i]][models[j]] = figures
            rates[models[j]][models[i]] = _mirror(figures)
    total = wins.sum(0)
    bounded = bool(is_bounded(total))
    strengths = fit_strengths(total)
    intervals = [Interval(math.nan, math.nan)] * len(models)
    if bounded:  # else the likelihood has no maximum, and the prior alone would make the ends
        intervals = [_percentiles(column) for column in fit_strengths(resampled).T]
    ranks = rank_strengths(strengths)
    return {
        "win_rates": rates,
        "strengths": {
            model: {
                "strength": float(strengths[index]),
                "low": _or_none(intervals[index].low),
                "high": _or_none(intervals[index].high),
                "rank": ranks[index],
            }
            for index, model in enumerate(models)
        },
        "strengths_bounded": bounded,
    }


def _compare_models(
    comparisons: pd.DataFrame,
    models: tuple[str, str],
    wins: npt.NDArray[np.float64],
    losses: npt.NDArray[np.float64],
    resampled_wins: npt.NDArray[np.float64],
    resampled_losses: npt.NDArray[np.float64],
) -> dict[str, Any] | None:
    """Figures of one model against another; wins and losses by prompt (C,), and their resampled sums (R,)."""
    played = wins + losses > 0
    if not played.any():
        return None
    shares = wins[played] / (wins + losses)[played]
    estimate = float(wins.sum() / (wins.sum() + losses.sum()))
    counts = resampled_wins + resampled_losses
    resampled = np.divide(resampled_wins, counts, out=np.full(len(counts), np.nan), where=counts > 0)
    interval = _interval(shares, resampled, estimate)
    of_both = comparisons[comparisons["first_model"].isin(models) & comparisons["second_model"].isin(models)]
    ties = int((of_both["score"] == 0.5).sum())
    n_wins = round(wins.sum() - ties / 2)
    return {
        "n": len(of_both),
        "prompts": len(shares),
        "wins": n_wins,
        "ties": ties,
        "losses": len(of_both) - ties - n_wins,
        "win_rate": estimate,
        "low": interval.low,
        "high": interval.high,
        # By prompt, since several answers to one prompt are no independent trials.
        "p_value": mcnemar_p(int((shares < 0.5).sum()), int((shares > 0.5).sum())),
    }


def _mirror(figures: Mapping[str, Any]) -> dict[str, Any]:
    """The same comparison from the other model's side."""
    return {
        **figures,
        "wins": figures["losses"],
        "losses": figures["wins"],
        "win_rate": 1 - figures["win_rate"],
        "low": 1 - figures["high"],
        "high": 1 - figures["low"],
    }


def report_positions(positions: pd.DataFrame, resamples: int, seed: int) -> dict[str, Any] | None:
    """Report the share of the verdicts for one of two answers that are for the one shown first.

    Args:
        positions: From `comparing.list_positions` or `list_voted_positions`.
        resamples: Bootstrap resamples of prompts.
        seed: Seed of the resamples.

    Returns:
        n (verdicts), share and its interval, 0.5 without a bias; None where there is no such verdict.
    """
    if positions.empty:
        return None
    counts = positions.groupby("prompt")["shown_first"].agg(["sum", "count"]).to_numpy(float)  # (C, 2)
    won, decided = counts.sum(0)
    sums = _resample(counts, resamples, seed)
    interval = _interval(counts[:, 0] / counts[:, 1], sums[:, 0] / sums[:, 1], won / decided)
    return {"n": int(decided), "share": float(won / decided), "low": interval.low, "high": interval.high}


def _resample(sums: npt.NDArray[np.float64], resamples: int, seed: int) -> npt.NDArray[np.float64]:
    """Sums over prompts that are drawn with replacement: (C, …) → (R, …)."""
    rng = np.random.default_rng(seed)
    n_prompts = len(sums)
    flat = sums.reshape(n_prompts, -1)
    parts = []
    for start in range(0, resamples, _BATCH):
        size = min(_BATCH, resamples - start)
        times = rng.multinomial(n_prompts, np.full(n_prompts, 1 / n_prompts), size=size)  # (R, C)
        parts.append(times @ flat)
    return np.concatenate(parts).reshape(resamples, *sums.shape[1:])


def _percentiles(values: npt.NDArray[np.float64]) -> Interval:
    if np.isnan(values).all():
        return Interval(math.nan, math.nan)
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return Interval(float(low), float(high))


def _interval(
    shares: npt.NDArray[np.float64], resampled: npt.NDArray[np.float64], estimate: float
) -> Interval:
    """95 % interval of a mean over prompts, by the bootstrap.

    Where all prompts have the same share a bootstrap has no width. Then a part of all prompts that n prompts
    would not show (Wilson's bound for 0 of n) may be won or lost entirely.

    Args:
        shares: Share of each prompt, shape (n,).
        resampled: The mean of each resample, shape (R,).
        estimate: The mean.

    Returns:
        The interval; NaN at both ends where no resample has a value.
    """
    if np.ptp(shares) > 0:
        return _percentiles(resampled)
    unseen = wilson_interval(0, len(shares)).high
    return Interval(estimate * (1 - unseen), estimate + (1 - estimate) * unseen)


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value
