"""Figures of comparisons: win rates as a matrix, Bradley–Terry strengths, position bias, with intervals.

A tie is half a win. Intervals are percentiles of a bootstrap over prompts, which are the clusters.
"""

import logging
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from realignment.evaluation.measures import metric_row
from realignment.evaluation.win_rates.bradley_terry import fit_strengths, is_bounded, rank_strengths
from realignment.evaluation.win_rates.comparators import Comparator
from realignment.evaluation.win_rates.comparing import COMPARISON_COLUMNS, compare_answers, list_positions
from realignment.oracles.rules import NoRulesError
from realignment.policy import Policy
from realignment.statistics import Comparison, Interval, mcnemar_p, wilson_interval

logger = logging.getLogger(__name__)

HEADLINES = ("regulated", "overall")
"""Groups of prompts whose win rates are in the evaluation table."""

_BATCH = 200
"""Resamples that are in memory at a time."""


def measure_win_rates(
    answers: pd.DataFrame,
    models: Sequence[str],
    comparator: Comparator | None,
    policy: Policy,
    *,
    resamples: int,
    seed: int,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Compare the answers of models and report the win rates; an empty report where nobody can compare.

    Args:
        answers: As of `comparing.compare_answers`.
        models: Columns of the answers.
        comparator: The judge; None: nobody is to compare.
        policy: The policy to compare by.
        resamples: Bootstrap resamples of prompts.
        seed: Seed of the resamples.

    Returns:
        The comparisons, and the report of `report_win_rates`; with a `note` where there is none to make.
    """
    comparisons = pd.DataFrame(columns=list(COMPARISON_COLUMNS)).astype({"score": float})
    note = "Nobody is to compare the answers (`evaluation.win_rate.judge: null`)."
    if comparator is not None:
        try:
            comparisons = compare_answers(answers, models, comparator, policy)
            note = "" if len(comparisons) else "There are no answers to compare."
        except NoRulesError as error:
            note = str(error)
    symmetric = comparator is None or comparator.symmetric
    report = report_win_rates(
        comparisons,
        judge=None if comparator is None else comparator.name,
        positions=None if symmetric else list_positions(comparisons),
        resamples=resamples,
        seed=seed,
    )
    if note:
        logger.info("No win rates: %s", note)
    elif report["unscored"]:
        logger.warning("%d of %d comparisons have no verdict", report["unscored"], len(comparisons))
    return comparisons, report | ({"note": note} if note else {})


def report_win_rates(
    comparisons: pd.DataFrame,
    *,
    judge: str | None,
    positions: pd.DataFrame | None,
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    """Report win rates and Bradley–Terry strengths by group of prompts, and how far the judge can be trusted.

    Args:
        comparisons: From `compare_answers` or `tally_votes`.
        judge: Name of the judge; None: there is none.
        positions: From `comparing.list_positions` or `list_voted_positions`; None: the order cannot matter.
        resamples: Bootstrap resamples of prompts.
        seed: Seed of the resamples.

    Returns:
        judge, models, prompts, unscored with reasons, order_disagreements, position_bias, and groups with
        `win_rates` (model → opponent → figures) and `strengths` (model → figures); null where unknown.
    """
    models = list(dict.fromkeys([*comparisons["first_model"], *comparisons["second_model"]]))
    scored = comparisons[comparisons["score"].notna()]
    unscored = comparisons[comparisons["score"].isna()]
    both = scored.dropna(subset=["forward", "backward"])
    reasons = Counter(unscored["reason"]).most_common(5)
    disagreements = int((both["forward"] != both["backward"]).sum())
    groups = {name: _report_group(part, models, resamples, seed) for name, part in _list_groups(scored)}
    return {
        "judge": judge,
        "models": models,
        "prompts": int(scored["prompt"].nunique()),
        "comparisons": len(scored),
        "unscored": len(unscored),
        "unscored_reasons": [{"reason": reason, "n": n} for reason, n in reasons],
        "order_disagreements": None if positions is None or both.empty else disagreements,
        "position_bias": None if positions is None else _report_positions(positions, resamples, seed),
        "groups": groups,
    }


def _list_groups(comparisons: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """The headlines, and every other kind of prompt; groups without a comparison are left out."""
    if comparisons.empty:
        return
    yield "overall", comparisons
    for kind, part in comparisons.groupby("kind"):
        yield (str(kind) if kind in HEADLINES else f"kind:{kind}"), part


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


def _report_positions(positions: pd.DataFrame, resamples: int, seed: int) -> dict[str, Any] | None:
    """Share of the verdicts for one of two answers that are for the one shown first; 0.5 is no bias."""
    if positions.empty:
        return None
    counts = positions.groupby("prompt")["shown_first"].agg(["sum", "count"]).to_numpy(float)  # (C, 2)
    won, decided = counts.sum(0)
    sums = _resample(counts, resamples, seed)
    interval = _interval(counts[:, 0] / counts[:, 1], sums[:, 0] / sums[:, 1], won / decided)
    return {"n": int(decided), "share": float(won / decided), "low": interval.low, "high": interval.high}


def _report_group(
    comparisons: pd.DataFrame, models: Sequence[str], resamples: int, seed: int
) -> dict[str, Any]:
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


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value


def win_rate_rows(report: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Return the headlines of a report as rows of the evaluation table: before is 1 − after.

    Args:
        report: From `report_win_rates`, of the models `before` and `after`.

    Yields:
        One row per headline group in which the two were compared.
    """
    for group in HEADLINES:
        figures = report.get("groups", {}).get(group, {}).get("win_rates", {}).get("after", {}).get("before")
        if figures is None:
            continue
        rate, low, high = figures["win_rate"], figures["low"], figures["high"]
        comparison = Comparison(
            figures["n"], 1 - rate, 1 - high, 1 - low, rate, low, high,
            2 * rate - 1, 2 * low - 1, 2 * high - 1, figures["p_value"], "sign, exact",
        )  # fmt: skip
        yield metric_row("win_rate", group, comparison, unit="share", judge=str(report["judge"]))
