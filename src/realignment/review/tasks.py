"""List what people are asked to judge: one task per prompt and response, without the oracle's verdict."""

import hashlib
from collections.abc import Iterable

import pandas as pd

from realignment.policy import Policy

JUDGED = ("chosen", "rejected")
TASK_COLUMNS = ("task_id", "policy", "policy_digest", "purpose", "domain", "prompt", "response")


def task_id(prompt: str, response: str) -> str:
    """Return an id of a prompt and its response, made of their content: a changed text has another id."""
    # With the prompt's length in front, no other division of the same characters has this id.
    content = f"{len(prompt)}:{prompt}{response}"
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def list_tasks(pairs: pd.DataFrame, policy: Policy, purpose: str) -> pd.DataFrame:
    """List both responses of every pair as tasks; a text that several pairs share is one task.

    Args:
        pairs: The pairs.
        policy: The policy to judge by.
        purpose: What the verdicts are for: "review" or "audit".

    Returns:
        `TASK_COLUMNS`.
    """
    return _unique(_to_tasks(pairs, pairs[name], policy, purpose) for name in JUDGED)


def list_corrections(corrections: pd.DataFrame, pairs: pd.DataFrame, policy: Policy) -> pd.DataFrame:
    """List corrections as tasks, without a sign of whether a person or a machine wrote them.

    Args:
        corrections: Columns pair_id, response; corrections of other pairs than `pairs` are left out.
        pairs: The pairs, with their prompts.
        policy: The policy to judge by.

    Returns:
        `TASK_COLUMNS`.
    """
    if corrections.empty:
        return pd.DataFrame(columns=list(TASK_COLUMNS))
    corrections = corrections[corrections["pair_id"].isin(pairs["pair_id"])]
    # One row of pairs per correction, in the order of the corrections.
    corrected_pairs = pairs.set_index("pair_id").loc[corrections["pair_id"]]
    return _unique([_to_tasks(corrected_pairs, corrections["response"], policy, "correction")])


def _to_tasks(pairs: pd.DataFrame, responses: pd.Series, policy: Policy, purpose: str) -> pd.DataFrame:
    columns = {
        "task_id": [task_id(*texts) for texts in zip(pairs["prompt"], responses, strict=True)],
        "policy": policy.full_name,
        "policy_digest": policy.fingerprint,
        "purpose": purpose,
        "domain": pairs["domain"].to_numpy(),
        "prompt": pairs["prompt"].to_numpy(),
        "response": responses.to_numpy(),
    }
    return pd.DataFrame(columns, columns=list(TASK_COLUMNS))


def _unique(parts: Iterable[pd.DataFrame]) -> pd.DataFrame:
    return pd.concat(list(parts), ignore_index=True).drop_duplicates("task_id", ignore_index=True)


def combine_tasks(*parts: pd.DataFrame) -> pd.DataFrame:
    """Combine tasks of every purpose, each once, ordered by id: the order does not tell where a task is from.

    Args:
        parts: Tables of tasks; one at least.

    Returns:
        `TASK_COLUMNS`; a task of several purposes names them all.
    """
    table = pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)
    purposes = table.groupby("task_id")["purpose"].agg(lambda names: " and ".join(sorted(set(names))))
    tasks = table.drop_duplicates("task_id").sort_values("task_id", ignore_index=True)
    return tasks.assign(purpose=tasks["task_id"].map(purposes))
