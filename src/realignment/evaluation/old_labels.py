"""Measure whether a model that was aligned to the old labels prefers them, on pairs that it has not seen."""

import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from realignment.evaluation.measures import metric_row
from realignment.evaluation.table import COLUMNS
from realignment.statistics import Comparison, compare_items

logger = logging.getLogger(__name__)

GROUP = "old_labels"


def tabulate_old_labels(scores: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Compare the preference of chosen over rejected before and after the alignment to the old labels.

    With lr(y) = log π(y|x) − log π_base(y|x), summed over tokens, and Δ = lr(chosen) − lr(rejected):
    the implicit accuracy is the share of Δ > 0, ties half (the reward accuracy of DPO, Rafailov et al. 2023,
    arXiv:2305.18290). The base model has Δ = 0 and thus ½. It says what the training taught, while the
    accuracy of the likelihoods themselves also says what the base model preferred already.

    Args:
        scores: `chosen` and `rejected` of each pair, from `teacher_forced.score_responses`.
        rng: Source of the bootstrap intervals.

    Returns:
        Columns `evaluation.table.COLUMNS`, of metrics preference_accuracy (per token),
        preference_accuracy_summed, implicit_accuracy, margin (nats per token), implicit_margin (Δ, nats),
        logratio_chosen, logratio_rejected (nats). Pairs that share a prompt count as one item. No pairs: no
        rows.
    """
    return pd.DataFrame(list(_rows(scores, rng)) if len(scores) else [], columns=list(COLUMNS))


def _rows(scores: pd.DataFrame, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    chosen, rejected = (
        scores[scores["response"] == response].set_index("pair_id") for response in ("chosen", "rejected")
    )
    rejected = rejected.loc[chosen.index]
    prompts = chosen["prompt"].tolist()

    def row(metric: str, before: npt.ArrayLike, after: npt.ArrayLike, unit: str) -> dict[str, Any]:
        return metric_row(metric, GROUP, compare_items(before, after, prompts, rng), unit=unit)

    # log π(chosen) − log π(rejected) of each pair, shape (n,): summed over tokens, and per token.
    summed = [(chosen[side] - rejected[side]).to_numpy(float) for side in ("reference_logprob", "logprob")]
    per_token = [
        (chosen[side] / chosen["tokens"] - rejected[side] / rejected["tokens"]).to_numpy(float)
        for side in ("reference_logprob", "logprob")
    ]
    before, after = ((differences > 0).astype(bool) for differences in per_token)
    yield row("preference_accuracy", before, after, "share")
    before, after = ((differences > 0).astype(bool) for differences in summed)
    yield row("preference_accuracy_summed", before, after, "share")
    logratios = [(part["logprob"] - part["reference_logprob"]).to_numpy(float) for part in (chosen, rejected)]
    delta = logratios[0] - logratios[1]
    accuracy = _implicit_accuracy(delta, prompts, rng)
    yield metric_row("implicit_accuracy", GROUP, accuracy, unit="share")
    yield row("margin", per_token[0], per_token[1], "nats/token")
    zeros = np.zeros_like(delta)
    yield row("implicit_margin", zeros, delta, "nats")
    yield row("logratio_chosen", zeros, logratios[0], "nats")
    yield row("logratio_rejected", zeros, logratios[1], "nats")


def _implicit_accuracy(
    delta: npt.NDArray[np.float64], prompts: list[Any], rng: np.random.Generator
) -> Comparison:
    """Share of Δ > 0, ties half, against the ½ of the base model; Δ of shape (n,)."""
    wins = (1 + np.sign(delta)) / 2
    comparison = compare_items(np.full(len(wins), 0.5), wins, prompts, rng)
    if not delta.all():
        return comparison
    # Without ties it is a proportion, whose interval has a width also where all are right.
    share = compare_items(wins == 1, wins == 1, prompts, rng)
    low, high = share.after_low, share.after_high
    return replace(
        comparison, after_low=low, after_high=high, difference_low=low - 0.5, difference_high=high - 0.5
    )


def log_verdict(table: pd.DataFrame) -> None:
    """Log whether the aligned model prefers the old labels; warn where the pairs do not show it.

    Args:
        table: From `tabulate_old_labels`.
    """
    found = table[table["metric"] == "implicit_accuracy"]
    if found.empty:
        logger.info("No pair is held out (`align.held_out_share`): what was learnt is not measured")
        return
    row = found.iloc[0]
    share = (
        f"{row['after']:.0%} (95 %: {row['after_low']:.0%} to {row['after_high']:.0%}) of {row['n']} "
        "held-out pairs the aligned model prefers the chosen response more than the base model does"
    )
    if row["after_low"] > 0.5:
        logger.info(f"On {share}: it has learnt the old labels")
    else:
        logger.warning(
            f"On {share}. That may be chance, and then there is no old policy to leave: raise `align.epochs` "
            "or `align.learning_rate`, or give more pairs"
        )
