"""What people are asked to judge: one task per prompt and response, blind to what the oracle said."""

import hashlib
from collections.abc import Iterable

import pandas as pd

from realignment.policy import Policy

JUDGED = ("chosen", "rejected")
TASK_COLUMNS = ("task_id", "policy", "policy_digest", "purpose", "domain", "prompt", "response")


def task_id(prompt: str, response: str) -> str:
    """Names a prompt and its response by their content: a text that was changed has another id."""
    content = f"{len(prompt)}:{prompt}{response}"
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def list_tasks(pairs: pd.DataFrame, policy: Policy, purpose: str) -> pd.DataFrame:
    """Both responses of every pair as tasks; a text that several pairs share is one task.

    Returns:
        `TASK_COLUMNS`.
    """
    return _unique(_to_tasks(pairs, pairs[name], policy, purpose) for name in JUDGED)


def list_corrections(corrections: pd.DataFrame, pairs: pd.DataFrame, policy: Policy) -> pd.DataFrame:
    """Corrections as tasks; nothing tells whether a person or a machine wrote them.

    Args:
        corrections: Columns pair_id, response; those of pairs that are not there are left out.
        pairs: With their prompts.
        policy: To judge by.

    Returns:
        `TASK_COLUMNS`.
    """
    if corrections.empty:
        return pd.DataFrame(columns=list(TASK_COLUMNS))
    known = corrections[corrections["pair_id"].isin(pairs["pair_id"])]
    of_pairs = pairs.set_index("pair_id").loc[known["pair_id"]]
    return _unique([_to_tasks(of_pairs, known["response"], policy, "correction")])


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
    """Tasks of every purpose, each once, ordered by id: the order says nothing of where a task is from."""
    together = pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)
    purposes = together.groupby("task_id")["purpose"].agg(lambda found: " and ".join(sorted(set(found))))
    tasks = together.drop_duplicates("task_id").sort_values("task_id", ignore_index=True)
    return tasks.assign(purpose=tasks["task_id"].map(purposes))
