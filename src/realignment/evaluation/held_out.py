"""Evaluate both models on held-out pairs: preference accuracy, margin and drift, without a judge."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from realignment.evaluation.measures import metric_row
from realignment.evaluation.teacher_forced import preference_order, score_responses
from realignment.parameters import EvaluationParameters
from realignment.parameters.base import ModelParameters
from realignment.records import Disposition
from realignment.statistics import compare_items


def score_held_out(
    pairs: pd.DataFrame,
    paths: tuple[str, str],
    model_parameters: ModelParameters,
    max_response_tokens: int,
    parameters: EvaluationParameters,
) -> pd.DataFrame:
    """Score chosen, rejected and (where given) correction of every held-out pair.

    Args:
        pairs: Held-out pairs.
        paths: Folders of the reference and of the realigned model.
        model_parameters: How the models are loaded.
        max_response_tokens: Length at which responses are truncated.
        parameters: Token budget of a batch.

    Returns:
        pair_id, prompt, disposition, response, role ("preferred", "dispreferred", "retained", ""), tokens,
        logprob, reference_logprob (nats, summed), kl (nats per token).
    """
    has_correction = pairs["correction"].notna().tolist()
    columns = [
        ("chosen", "rejected", "correction") if has else ("chosen", "rejected") for has in has_correction
    ]
    scores = score_responses(
        pairs,
        columns,
        paths,
        model_parameters,
        max_response_tokens=max_response_tokens,
        token_budget=parameters.token_budget,
        progress="Held-out pairs",
    )
    dispositions = pairs["disposition"].tolist()
    roles = [
        _role(dispositions[pair], has_correction[pair], response)
        for pair, response in zip(scores["pair"], scores["response"], strict=True)
    ]
    scores = scores.assign(disposition=[dispositions[pair] for pair in scores["pair"]], role=roles)
    names = ["pair_id", "prompt", "disposition", "response", "role"]
    return scores[[*names, "tokens", "logprob", "reference_logprob", "kl"]]


def _role(disposition: str, has_correction: bool, response: str) -> str:
    """What training does with a response: "preferred", "dispreferred", "retained", or "" for nothing."""
    if disposition == Disposition.RETAIN:
        return "retained" if response == "chosen" else ""
    if disposition == Disposition.PUNISH and response != "correction":
        return "dispreferred"
    order = preference_order(disposition, has_correction)
    if order is None or response not in order:  # such as the correction of an INVERT pair
        return ""
    return "preferred" if response == order[0] else "dispreferred"


def tabulate_held_out(scores: pd.DataFrame, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    """Tabulate preference accuracy and margin, log-ratios of good, bad and retained answers, and drift.

    A preference is right where the model finds the preferred answer likelier per token (log π / |y|); the
    margin is the difference of the two in nats per token. Where responses share a prompt, intervals and tests
    take each prompt with all its responses for one item (`statistics.compare_clustered`).

    Args:
        scores: From `score_held_out`; earlier versions' have no prompt, and pairs are taken for prompts.
        rng: Source of the bootstrap intervals.

    Yields:
        Rows of the evaluation table (`evaluation.measures.metric_row`).
    """
    clusters = scores.get("prompt", scores["pair_id"])
    margins = preference_margins(scores)
    if len(margins):
        prompt_by_pair = dict(zip(scores["pair_id"], clusters, strict=True))
        prompts = [prompt_by_pair[pair] for pair in margins.index]
        right_before = (margins["before"] > 0).to_numpy(bool)
        right_after = (margins["after"] > 0).to_numpy(bool)
        accuracy = compare_items(right_before, right_after, prompts, rng)
        yield metric_row("preference_accuracy", "held_out", accuracy, unit="share")
        margin = compare_items(margins["before"], margins["after"], prompts, rng)
        yield metric_row("margin", "held_out", margin, unit="nats/token")
    # The reference is the state before training: there its log-ratio and its KL to itself are zero.
    for role, part in scores[scores["role"] != ""].groupby("role"):
        logratios = (part["logprob"] - part["reference_logprob"]).to_numpy(float)
        comparison = compare_items(np.zeros_like(logratios), logratios, clusters[part.index].tolist(), rng)
        yield metric_row(f"logratio_{role}", "held_out", comparison, unit="nats")
    is_retained = scores["role"] == "retained"
    drift = scores.loc[is_retained, "kl"].to_numpy(float)
    if len(drift):
        comparison = compare_items(np.zeros_like(drift), drift, clusters[is_retained].tolist(), rng)
        yield metric_row("kl_drift", "retained", comparison, unit="nats/token")


def preference_margins(scores: pd.DataFrame) -> pd.DataFrame:
    """Return by how much the preferred response is likelier than the chosen one that it replaces.

    Args:
        scores: From `score_held_out`.

    Returns:
        By pair_id: `before` and `after`, in nats per token.
    """
    # Sums over tokens would favour the shorter response whatever it says.
    per_token = scores.assign(
        before=scores["reference_logprob"] / scores["tokens"], after=scores["logprob"] / scores["tokens"]
    ).set_index("pair_id")
    is_preferred = per_token["role"] == "preferred"
    is_replaced = (per_token["response"] == "chosen") & (per_token["role"] == "dispreferred")
    preferred = per_token.loc[is_preferred, ["before", "after"]]
    replaced = per_token.loc[is_replaced, ["before", "after"]]
    return (preferred - replaced.reindex(preferred.index)).dropna()
