"""Judgments of all responses of a table of pairs, by an oracle."""

from collections.abc import Sequence
from itertools import chain, islice

import pandas as pd
from tqdm import tqdm

from realignment.oracles import Oracle
from realignment.policy import Policy
from realignment.records import Exchange, Judgment

JUDGED_RESPONSES = ("chosen", "rejected", "correction")


def list_exchanges(pairs: pd.DataFrame, response: str) -> list[Exchange]:
    """Return the exchanges of one kind of response, for the rows that have it."""
    rows = pairs[pairs[response].notna()]
    # A null in a column of text is NaN, and an exchange without a domain has None.
    domains = (domain if isinstance(domain, str) else None for domain in rows["domain"])
    return [Exchange(*row) for row in zip(rows["prompt"], rows[response], domains, strict=True)]


def judge_pairs(
    pairs: pd.DataFrame, policy: Policy, oracle: Oracle, *, chunk_size: int | None = None
) -> pd.DataFrame:
    """Judge both responses of each pair, and the correction where a pair has one.

    Args:
        pairs: Cleaned pairs.
        policy: The policy to judge by.
        oracle: Called once per chunk, with all of its responses: some oracles then read each prompt once.
        chunk_size: Pairs of a chunk; None: all.

    Returns:
        Columns pair_id, response, complies (True, False or null), confidence, rules_broken, reason, oracle;
        the chosen responses first, then the rejected ones, then the corrections.
    """
    size = chunk_size or max(len(pairs), 1)
    starts = range(0, max(len(pairs), 1), size)
    # No bar for a single chunk; else (None) one if this is a terminal.
    disable = True if len(starts) == 1 else None
    bar = tqdm(total=len(pairs), desc=f"Judging by {oracle.name}", unit="pair", disable=disable)
    # By kind of response, so that the table lists all chosen responses first.
    parts: dict[str, list[pd.DataFrame]] = {response: [] for response in JUDGED_RESPONSES}
    with bar:
        for start in starts:
            chunk = pairs.iloc[start : start + size]
            for response, table in _judge_chunk(chunk, policy, oracle).items():
                parts[response].append(table)
            bar.update(len(chunk))
    return pd.concat(list(chain.from_iterable(parts.values())), ignore_index=True)


def _judge_chunk(pairs: pd.DataFrame, policy: Policy, oracle: Oracle) -> dict[str, pd.DataFrame]:
    """Return judgments by kind of response, from a single call: some oracles have a cost per call."""
    exchanges = {response: list_exchanges(pairs, response) for response in JUDGED_RESPONSES}
    judgments = iter(oracle(list(chain.from_iterable(exchanges.values())), policy))
    tables: dict[str, pd.DataFrame] = {}
    for response, response_exchanges in exchanges.items():
        # Judgments come in the order of the exchanges: the next ones belong to this kind of response.
        response_judgments = list(islice(judgments, len(response_exchanges)))
        tables[response] = _tabulate_response(pairs, response, response_judgments, oracle.name)
    return tables


def _tabulate_response(
    pairs: pd.DataFrame, response: str, judgments: list[Judgment], oracle: str
) -> pd.DataFrame:
    pair_ids = pairs.loc[pairs[response].notna(), "pair_id"]
    table = tabulate_judgments(judgments)
    table.insert(0, "pair_id", pd.Series(pair_ids.tolist(), dtype="str"))
    table.insert(1, "response", pd.Series([response] * len(table), dtype="str"))
    return table.assign(oracle=pd.Series([oracle] * len(table), dtype="str"))


def tabulate_judgments(judgments: Sequence[Judgment]) -> pd.DataFrame:
    """Return a table of judgments, one row each, in order.

    Args:
        judgments: The judgments.

    Returns:
        Columns complies (true, false or null), confidence, rules_broken (ids separated by commas), reason.
    """
    columns = {
        "complies": [judgment.complies for judgment in judgments],
        "confidence": [judgment.confidence for judgment in judgments],
        "rules_broken": [",".join(judgment.rules_broken) for judgment in judgments],
        "reason": [judgment.reason for judgment in judgments],
    }
    # Types are stated: from an empty table (a chunk may have no correction) they cannot be inferred.
    dtypes = {"complies": "boolean", "confidence": "float64"}
    return pd.DataFrame(
        {name: pd.Series(cells, dtype=dtypes.get(name, "str")) for name, cells in columns.items()}
    )
