"""Held-out pairs under both models: the evaluation that needs no judge."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from realignment.evaluation.measures import row
from realignment.evaluation.teacher_forced import preference_order, score_pairs
from realignment.likelihood.layout_probe import choose_layout
from realignment.model.loading import load_configured
from realignment.objective.examples import tokenize_columns
from realignment.parameters import EvaluationParameters
from realignment.parameters.base import ModelParameters
from realignment.records import Disposition
from realignment.statistics import compare_means, compare_proportions


def score(
    pairs: pd.DataFrame,
    paths: tuple[str, str],
    model_parameters: ModelParameters,
    max_response_tokens: int,
    parameters: EvaluationParameters,
) -> pd.DataFrame:
    """Score chosen, rejected and (where given) correction of every held-out pair.

    Args:
        pairs: Held-out pairs.
        paths: Reference and realigned model.
        model_parameters: How they are loaded.
        max_response_tokens: Where responses are cut.
        parameters: Batch size and budget.

    Returns:
        pair_id, disposition, response, role ("preferred", "dispreferred", "retained", ""), tokens, logprob,
        reference_logprob (nats, summed), kl (nats per token).
    """
    reference, tokenizer = load_configured(paths[0], model_parameters)
    model, _ = load_configured(paths[1], model_parameters)
    corrected = pairs["correction"].notna().tolist()
    columns = [("chosen", "rejected", *["correction"] * has) for has in corrected]
    tokens = tokenize_columns(pairs, tokenizer, columns, max_response_tokens=max_response_tokens)
    layout = choose_layout(model, pad_id=int(tokenizer.pad_token_id))
    budget = parameters.token_budget
    scores = score_pairs(
        model, reference, tokens, layout=layout, token_budget=budget, progress="Held-out pairs"
    )
    ids, dispositions = pairs["pair_id"].tolist(), pairs["disposition"].tolist()
    responses = [columns[pair][slot] for pair, slot in zip(scores["pair"], scores["slot"], strict=True)]
    return pd.DataFrame(
        {
            "pair_id": [ids[pair] for pair in scores["pair"]],
            "disposition": [dispositions[pair] for pair in scores["pair"]],
            "response": responses,
            "role": [
                _role(dispositions[pair], corrected[pair], response)
                for pair, response in zip(scores["pair"], responses, strict=True)
            ],
            **{name: scores[name] for name in ("tokens", "logprob", "reference_logprob", "kl")},
        }
    )


def _role(disposition: str, has_correction: bool, response: str) -> str:
    if disposition == Disposition.RETAIN:
        return "retained" if response == "chosen" else ""
    if disposition == Disposition.PUNISH and response != "correction":
        return "dispreferred"
    order = preference_order(disposition, has_correction)
    if order is None or response not in order:  # such as the correction of an INVERT pair
        return ""
    return "preferred" if response == order[0] else "dispreferred"


def rows(scores: pd.DataFrame, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    """Preference accuracy and margin, drift, and log-ratios of good, bad and retained answers side by side.

    A preference is right where the model finds the preferred answer likelier per token (log π / |y|); the
    margin is the difference of the two in nats per token.
    """
    per_token = scores.assign(
        before=scores["reference_logprob"] / scores["tokens"], after=scores["logprob"] / scores["tokens"]
    )
    margins = _margins(per_token)
    if len(margins):
        right = compare_proportions(margins["before"] > 0, margins["after"] > 0)
        yield row("preference_accuracy", "held_out", right, unit="share")
        yield row(
            "margin", "held_out", compare_means(margins["before"], margins["after"], rng), unit="nats/token"
        )
    for role, part in scores[scores["role"] != ""].groupby("role"):
        change = (part["logprob"] - part["reference_logprob"]).to_numpy(float)
        yield row(
            f"logratio_{role}", "held_out", compare_means(np.zeros_like(change), change, rng), unit="nats"
        )
    retained = scores.loc[scores["role"] == "retained", "kl"].to_numpy(float)
    if len(retained):
        yield row(
            "kl_drift", "retained", compare_means(np.zeros_like(retained), retained, rng), unit="nats/token"
        )


def _margins(per_token: pd.DataFrame) -> pd.DataFrame:
    """Preferred minus the chosen response it replaces, per conflict pair."""
    keyed = per_token.set_index("pair_id")
    preferred = keyed.loc[keyed["role"] == "preferred", ["before", "after"]]
    chosen = keyed.loc[
        (keyed["response"] == "chosen") & (keyed["role"] == "dispreferred"), ["before", "after"]
    ]
    return (preferred - chosen.reindex(preferred.index)).dropna()
