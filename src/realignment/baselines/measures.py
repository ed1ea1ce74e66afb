"""What a cell's model is measured by, one row an item: held-out pairs, answers, capability."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from realignment.corrections.candidates import build_instructed_chat
from realignment.corrections.writers import fold_system_turn, supports_system_turn
from realignment.evaluation import capability, held_out, text_measures
from realignment.evaluation.measures import OUTSIDE_KINDS
from realignment.evaluation.perplexity import TEXT
from realignment.judging import list_exchanges
from realignment.likelihood.tokenization import chat_messages
from realignment.model.generation import Answer, generate_answers
from realignment.model.loading import load_configured_model
from realignment.oracles import Oracle
from realignment.parameters import CapabilityParameters, EvaluationParameters
from realignment.parameters.base import ModelParameters
from realignment.policy import Policy

CONTEXT_WORDS = 100
"""Words to which the policy in the context asks the model to keep its answers."""

Item = dict[str, Any]
"""metric, group, judge, item, cluster (digest of the prompt, which several items may share), value."""


def build_item(metric: str, group: str, item: str, value: float, *, cluster: str, judge: str = "") -> Item:
    """Return one row of the table of items.

    Args:
        metric: What is measured.
        group: On what.
        item: Name of the item within the group.
        value: NaN where a judge gave no verdict.
        cluster: The prompt; it is kept as a digest, for data may be forbidden to be passed on.
        judge: Name of the judge.

    Returns:
        The row.
    """
    return {
        "metric": metric,
        "group": group,
        "judge": judge,
        "item": item,
        "cluster": hashlib.blake2b(cluster.encode(), digest_size=4).hexdigest(),
        "value": round(value, 5),
    }


def measure_held_out(
    pairs: pd.DataFrame,
    paths: tuple[str, str],
    model_parameters: ModelParameters,
    max_response_tokens: int,
    parameters: EvaluationParameters,
) -> Iterator[Item]:
    """Score held-out pairs by teacher forcing: preference accuracy, log-ratios by role, drift.

    Args:
        pairs: Held-out pairs.
        paths: Folders of the reference and of the model.
        model_parameters: How they are loaded.
        max_response_tokens: Length at which responses are cut.
        parameters: Token budget.

    Yields:
        `preference_accuracy` and `margin` (nats per token) by pair, `logratio_<role>` (nats) by response,
        `kl_drift` (nats per token) by retained pair.
    """
    scores = held_out.score_held_out(pairs, paths, model_parameters, max_response_tokens, parameters)
    prompts = dict(zip(scores["pair_id"], scores["prompt"], strict=True))
    margins = held_out.preference_margins(scores)
    for pair_id, margin in margins["after"].items():
        cluster = prompts[pair_id]
        yield build_item("preference_accuracy", "held_out", str(pair_id), float(margin > 0), cluster=cluster)
        yield build_item("margin", "held_out", str(pair_id), float(margin), cluster=cluster)
    logratios = (scores["logprob"] - scores["reference_logprob"]).to_numpy(float)
    for row, value in zip(scores.to_dict("records"), logratios, strict=True):
        if row["role"]:
            name = f"{row['pair_id']}/{row['response']}"
            yield build_item(f"logratio_{row['role']}", "held_out", name, value, cluster=row["prompt"])
        if row["role"] == "retained":
            yield build_item("kl_drift", "retained", row["pair_id"], row["kl"], cluster=row["prompt"])


def measure_answers(
    prompts: pd.DataFrame,
    path: str,
    model_parameters: ModelParameters,
    judges: Sequence[Oracle],
    policy: Policy,
    parameters: EvaluationParameters,
    *,
    policy_in_context: bool,
) -> Iterator[Item]:
    """Answer every prompt greedily, and let every judge judge the answers.

    Args:
        prompts: prompt_id, prompt, messages, domain, kind.
        path: Folder of the model.
        model_parameters: How it is loaded.
        judges: The judges.
        policy: The new policy.
        parameters: Length of the answers, batch size.
        policy_in_context: Whether the policy is the system prompt.

    Yields:
        `agreement` of regulated prompts and `over_refusal` of others by judge, and by prompt `answer_words`,
        `answer_cut`, `entropy` (nats per token) and `repetition`.
    """
    if prompts.empty:
        return
    model, tokenizer = load_configured_model(path, model_parameters)
    chats = [_build_chat(row, policy if policy_in_context else None) for row in _records(prompts)]
    if policy_in_context and not supports_system_turn(tokenizer):
        chats = [fold_system_turn(chat) for chat in chats]
    answers = generate_answers(
        model,
        tokenizer,
        chats,
        max_new_tokens=parameters.max_new_tokens,
        batch_size=parameters.batch_size,
        repetition_penalty=parameters.repetition_penalty,
        progress="Answers",
    )
    table = prompts.assign(answer=[answer.text for answer in answers])
    for judge in judges:
        judgments = judge(list_exchanges(table, "answer"), policy)
        verdicts = [judgment.complies for judgment in judgments]
        yield from _judged_items(table, verdicts, judge.name)
    for row, answer in zip(_records(table), answers, strict=True):
        yield from _text_items(row, answer)


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return table.to_dict("records")  # type: ignore[return-value]


def _build_chat(row: Mapping[str, Any], policy: Policy | None) -> list[dict[str, str]]:
    """The prompt's chat, with the policy before it where there is one."""
    if policy is None:
        return chat_messages(row["prompt"], row["messages"])
    return build_instructed_chat(row["prompt"], row["messages"], policy, max_words=CONTEXT_WORDS)


def _judged_items(table: pd.DataFrame, verdicts: Sequence[bool | None], judge: str) -> Iterator[Item]:
    for row, complies in zip(_records(table), verdicts, strict=True):
        is_outside = row["kind"] in OUTSIDE_KINDS
        metric = "over_refusal" if is_outside else "agreement"
        # Where the policy does not apply it asks for a direct answer: a violation is an over-refusal.
        value = np.nan if complies is None else float(complies != is_outside)
        group = "overall" if is_outside else "regulated"
        yield build_item(metric, group, row["prompt_id"], value, cluster=row["prompt"], judge=judge)


def _text_items(row: Mapping[str, Any], answer: Answer) -> Iterator[Item]:
    values = {
        "answer_words": float(text_measures.count_words(answer.text)),
        "answer_cut": float(not answer.complete),
        "entropy": answer.entropy,
        "repetition": text_measures.repeated_share(answer.text),
    }
    for metric, value in values.items():
        if value is not None:
            yield build_item(metric, row["kind"], row["prompt_id"], float(value), cluster=row["prompt"])


def measure_capability(
    path: str, model_parameters: ModelParameters, parameters: CapabilityParameters
) -> Iterator[Item]:
    """Score the model on every question of every task, one metric a task.

    Args:
        path: Folder of the model.
        model_parameters: How it is loaded.
        parameters: Tasks, files, limit.

    Yields:
        `capability` of group "task:…" by question.
    """
    scores = capability.score_model(path, model_parameters, parameters)
    for row in _records(scores[scores["task"] != TEXT]):
        name = f"{row['task']}/{row['question']}"
        yield build_item("capability", f"task:{row['task']}", name, float(row["score"]), cluster=name)
