"""Candidates for corrections, as rows: what people wrote, and what a writer answers under the policy."""

import hashlib
import json
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from realignment.corrections.writers import Chat, Writer
from realignment.policy import Policy
from realignment.records import DataError

PEOPLE = "people"
"""Writer of what comes with the data."""

CANDIDATE_COLUMNS = (
    "pair_id",
    "candidate",
    "writer",
    "model",
    "policy",
    "instruction",
    "response",
    "complete",
)

INSTRUCTION = (
    "You follow this policy in everything that you write:\n\n{policy}\n\n{rules}"
    "Answer the user in at most {words} words, so that your answer keeps to the policy and is as useful as "
    "it can be within it. Write the answer alone: do not mention the policy."
)
"""The system prompt of a writer; its digest is on every row."""


class CandidateError(DataError):
    """Candidates that cannot be used: columns are missing, or they belong to other pairs."""


def instruction_digest() -> str:
    """sha256 of the instruction, cut to 12 characters: another wording, another digest."""
    return hashlib.sha256(INSTRUCTION.encode()).hexdigest()[:12]


def choose_pairs(punish: pd.DataFrame, people: pd.DataFrame, *, sample: int, seed: int) -> pd.DataFrame:
    """The pairs that a machine writes for: those without a correction by people, and a sample of the others.

    Args:
        punish: PUNISH pairs, after triage: a correction that their oracle did not let pass is null.
        people: From `people_candidates`.
        sample: Pairs that people have corrected too, at most; they are compared, and people's is trained on.
        seed: Of the sample.
    """
    from_file = people.loc[people["model"] != PEOPLE, "pair_id"]
    done = punish["correction"].notna() | punish["pair_id"].isin(from_file)
    drawn = np.random.default_rng(seed).permutation(np.flatnonzero(done))[:sample]
    return punish.iloc[sorted([*np.flatnonzero(~done), *drawn])]


def write_candidates(
    pairs: pd.DataFrame, policy: Policy, writer: Writer, *, samples: int, max_words: int
) -> pd.DataFrame:
    """`samples` drafts per pair as rows of CANDIDATE_COLUMNS; the writer is asked for `max_words` at most."""
    rows: list[dict[str, Any]] = pairs.to_dict("records")  # type: ignore[assignment]
    chats = [instructed_chat(row["prompt"], row["messages"], policy, max_words=max_words) for row in rows]
    drafts = writer([chat for chat in chats for _ in range(samples)])
    lines = [
        (row["pair_id"], number, writer.name, writer.model, policy.digest, instruction_digest())
        for row in rows
        for number in range(samples)
    ]
    return to_table((*line, draft.text, draft.complete) for line, draft in zip(lines, drafts, strict=True))


def instructed_chat(prompt: str, messages: Any, policy: Policy, *, max_words: int) -> Chat:
    """The pair's chat with the policy before it, as its system turn or at the head of the one that it has."""
    rules = "".join(f"- {rule.description}\n" for rule in policy.rules)
    listed = f"Its rules:\n\n{rules}\n" if rules else ""
    text = INSTRUCTION.format(policy=policy.text.strip(), rules=listed, words=max_words)
    chat = json.loads(messages) if isinstance(messages, str) and messages else [_turn("user", prompt)]
    if chat[0]["role"] == "system":
        return [_turn("system", f"{text}\n\n{chat[0]['content']}"), *chat[1:]]
    return [_turn("system", text), *chat]


def _turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def people_candidates(punish: pd.DataFrame, pairs: pd.DataFrame, written: pd.DataFrame) -> pd.DataFrame:
    """What people wrote for the PUNISH pairs: the column `correction` of the pairs, then the file of its own.

    Args:
        punish: PUNISH pairs.
        pairs: All pairs as they came in, with every correction, also those that an oracle did not let pass.
        written: Columns pair_id and correction, and optionally writer (a name); may be empty.

    Raises:
        CandidateError: Columns are missing, a pair_id is unknown to the pairs, or a correction is no text.
    """
    given = pairs.loc[pairs["pair_id"].isin(punish["pair_id"]) & pairs["correction"].notna()]
    rows = [
        (pair_id, PEOPLE, text) for pair_id, text in zip(given["pair_id"], given["correction"], strict=True)
    ]
    rows += _read_written(written, set(pairs["pair_id"]), set(punish["pair_id"]))
    numbers: dict[str, int] = {}
    lines = []
    for pair_id, who, text in rows:
        number = numbers[pair_id] = numbers.get(pair_id, -1) + 1
        lines.append((pair_id, number, PEOPLE, who, "", "", text, True))
    return to_table(lines)


def _read_written(written: pd.DataFrame, known: set[str], wanted: set[str]) -> list[tuple[str, str, str]]:
    if written.empty:
        return []
    if missing := [column for column in ("pair_id", "correction") if column not in written]:
        raise CandidateError(
            f"The file of corrections lacks {', '.join(missing)}; found "
            f"{', '.join(map(str, written.columns))}. Expected: pair_id, correction, and optionally writer. "
            "Without such a file set `written_corrections: none`."
        )
    table = written.dropna(subset=["pair_id", "correction"]).assign(pair_id=lambda t: t["pair_id"].map(str))
    if strangers := sorted(set(table["pair_id"]) - known):
        raise CandidateError(
            f"The file of corrections has {len(strangers)} pair_id that no pair has (first: "
            f"{strangers[0]!r}). Take them from `punish_pairs`; ids that are made from the texts change when "
            "a text does."
        )
    if not all(isinstance(text, str) for text in table["correction"]):
        raise CandidateError("The file of corrections has a correction that is not a text; expected texts.")
    names = table["writer"].fillna("a file") if "writer" in table else ["a file"] * len(table)
    rows = zip(table["pair_id"], map(str, names), table["correction"], strict=True)
    # A pair may have moved to another disposition since it was written for: then it needs none.
    return [(pair_id, who, text.strip()) for pair_id, who, text in rows if pair_id in wanted]


def check_origin(candidates: pd.DataFrame, punish: pd.DataFrame, policy_digest: str) -> None:
    """Make sure that candidates were written for these pairs under this policy.

    Raises:
        CandidateError: They come from another run, or there are none.
    """
    if "pair_id" not in candidates:
        raise CandidateError("There are no corrections yet. Run `--pipelines corrections`.")
    strangers = set(candidates["pair_id"]) - set(punish["pair_id"])
    others = set(candidates["policy"]) - {"", policy_digest}
    if strangers or others:
        raise CandidateError(
            f"The candidates come from another run: {len(strangers)} of their pairs are not among the "
            f"{len(punish)} PUNISH pairs, and {len(others)} other policies were followed. Run `--pipelines "
            "corrections` again, or load all of its outputs in one version (`--load-versions`)."
        )


def to_table(lines: Iterable[tuple[Any, ...]]) -> pd.DataFrame:
    """Rows as a table of CANDIDATE_COLUMNS whose types survive Parquet, none included."""
    kinds = dict.fromkeys(CANDIDATE_COLUMNS, "str") | {"candidate": "int64", "complete": "bool"}
    return pd.DataFrame(list(lines), columns=list(CANDIDATE_COLUMNS)).astype(kinds)
