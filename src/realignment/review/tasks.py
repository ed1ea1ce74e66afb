"""What people are asked to judge: one task per prompt and response, blind to what the oracle said."""

import hashlib

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
    parts = [
        pd.DataFrame(
            {
                "task_id": [task_id(*texts) for texts in zip(pairs["prompt"], pairs[name], strict=True)],
                "policy": policy.full_name,
                "policy_digest": policy.fingerprint,
                "purpose": purpose,
                "domain": pairs["domain"].to_numpy(),
                "prompt": pairs["prompt"].to_numpy(),
                "response": pairs[name].to_numpy(),
            },
            columns=list(TASK_COLUMNS),
        )
        for name in JUDGED
    ]
    return pd.concat(parts, ignore_index=True).drop_duplicates("task_id", ignore_index=True)


def combine_tasks(review: pd.DataFrame, audit: pd.DataFrame) -> pd.DataFrame:
    """Tasks of both purposes, each once, ordered by id: the order says nothing of where a task is from."""
    both = pd.concat([review, audit], ignore_index=True)
    purposes = both.groupby("task_id")["purpose"].agg(lambda found: " and ".join(sorted(set(found))))
    tasks = both.drop_duplicates("task_id").sort_values("task_id", ignore_index=True)
    return tasks.assign(purpose=tasks["task_id"].map(purposes))
