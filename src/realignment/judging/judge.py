"""Pairs → judgments: ask an oracle about every response, and measure it where the truth is known."""

from collections.abc import Sequence
from itertools import chain, islice

import pandas as pd
from tqdm import tqdm

from realignment.oracles import Oracle
from realignment.policy import Policy
from realignment.records import Exchange, Judgment

JUDGED_RESPONSES = ("chosen", "rejected", "correction")


def exchanges_of(pairs: pd.DataFrame, response: str) -> list[Exchange]:
    """The exchanges of one kind of response, for the rows that have it."""
    rows = pairs[pairs[response].notna()]
    # A null in a column of text is NaN, which is neither None nor false.
    domains = (domain if isinstance(domain, str) else None for domain in rows["domain"])
    return [Exchange(*row) for row in zip(rows["prompt"], rows[response], domains, strict=True)]


def judge_pairs(
    pairs: pd.DataFrame, policy: Policy, oracle: Oracle, *, chunk_size: int | None = None
) -> pd.DataFrame:
    """Judgments of both responses, and of the correction where a pair has one.

    Args:
        pairs: Cleaned pairs.
        policy: To judge by.
        oracle: Who judges; it is asked once a chunk, about all of its responses: some read a prompt once.
        chunk_size: Pairs of a chunk; None: all.

    Returns:
        Columns pair_id, response, complies (True, False or null), confidence, rules_broken, reason, oracle;
        the chosen responses first, then the rejected ones, then the corrections.
    """
    size = chunk_size or max(len(pairs), 1)
    starts = range(0, max(len(pairs), 1), size)
    alone = True if len(starts) == 1 else None  # None: shown on a terminal
    bar = tqdm(total=len(pairs), desc=f"Judging by {oracle.name}", unit="pair", disable=alone)
    parts: dict[str, list[pd.DataFrame]] = {response: [] for response in JUDGED_RESPONSES}
    with bar:
        for start in starts:
            chunk = pairs.iloc[start : start + size]
            for response, judged in _judge_chunk(chunk, policy, oracle).items():
                parts[response].append(judged)
            bar.update(len(chunk))
    return pd.concat([table for judged in parts.values() for table in judged], ignore_index=True)


def _judge_chunk(pairs: pd.DataFrame, policy: Policy, oracle: Oracle) -> dict[str, pd.DataFrame]:
    """The judgments of each kind of response, asked for at once: an oracle may pay once for each call."""
    asked = {response: exchanges_of(pairs, response) for response in JUDGED_RESPONSES}
    judgments = iter(oracle([*chain.from_iterable(asked.values())], policy))
    return {
        response: _judged(pairs, response, list(islice(judgments, len(exchanges))), oracle.name)
        for response, exchanges in asked.items()
    }


def _judged(pairs: pd.DataFrame, response: str, judgments: list[Judgment], oracle: str) -> pd.DataFrame:
    pair_ids = pairs.loc[pairs[response].notna(), "pair_id"]
    table = tabulate(judgments)
    table.insert(0, "pair_id", pd.Series(pair_ids.tolist(), dtype="str"))
    table.insert(1, "response", pd.Series([response] * len(table), dtype="str"))
    return table.assign(oracle=pd.Series([oracle] * len(table), dtype="str"))


def tabulate(judgments: Sequence[Judgment]) -> pd.DataFrame:
    """Columns complies (true, false or null), confidence, rules_broken (ids between commas), reason."""
    columns = {
        "complies": [judgment.complies for judgment in judgments],
        "confidence": [judgment.confidence for judgment in judgments],
        "rules_broken": [",".join(judgment.rules_broken) for judgment in judgments],
        "reason": [judgment.reason for judgment in judgments],
    }
    kinds = {"complies": "boolean", "confidence": "float64"}
    return pd.DataFrame(
        # Said, not inferred: a chunk may have no correction at all.
        {name: pd.Series(cells, dtype=kinds.get(name, "str")) for name, cells in columns.items()}
    )
