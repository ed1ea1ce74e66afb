"""Candidates for corrections: responses that people wrote, and that a model writes under the policy."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from realignment.corrections.writers import Chat, Writer
from realignment.policy import Policy
from realignment.records import DataError

PEOPLE = "people"
"""The writer of corrections that come with the data or in a file of their own."""

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
"""The system prompt of a writer; its digest is in every row."""

_UNNAMED_WRITER = "a file"


class CandidateError(DataError):
    """Candidates that cannot be used: columns are missing, or they belong to other pairs."""


def digest_instruction() -> str:
    """Return the first 12 characters of the instruction's sha256, which another wording would change."""
    return hashlib.sha256(INSTRUCTION.encode()).hexdigest()[:12]


def choose_pairs_to_correct(
    punish: pd.DataFrame, people: pd.DataFrame, *, sample: int, seed: int
) -> pd.DataFrame:
    """Choose the pairs that a machine writes for: those that people did not correct, and some that they did.

    Args:
        punish: PUNISH pairs, after triage: a correction that their oracle rejected is null.
        people: From `collect_people_candidates`.
        sample: Pairs that people have corrected, at most, for comparison; training uses people's corrections.
        seed: Seeds the sample.

    Returns:
        Rows of `punish`, in their order.
    """
    in_file = people.loc[people["model"] != PEOPLE, "pair_id"]
    is_corrected = punish["correction"].notna() | punish["pair_id"].isin(in_file)
    sampled = np.random.default_rng(seed).permutation(np.flatnonzero(is_corrected))[:sample]
    return punish.iloc[sorted([*np.flatnonzero(~is_corrected), *sampled])]


def write_candidates(
    pairs: pd.DataFrame, policy: Policy, writer: Writer, *, samples: int, max_words: int
) -> pd.DataFrame:
    """Let a writer answer the prompts of pairs under the policy.

    Args:
        pairs: Columns pair_id, prompt, messages.
        policy: What the responses must comply with.
        writer: Answers chats.
        samples: Drafts per pair.
        max_words: Words that the writer is told to use at most.

    Returns:
        CANDIDATE_COLUMNS, with `samples` rows per pair.
    """
    rows: list[dict[str, Any]] = pairs.to_dict("records")  # type: ignore[assignment]
    chats: list[Chat] = []
    origins: list[tuple[Any, ...]] = []
    for row in rows:
        chat = build_instructed_chat(row["prompt"], row["messages"], policy, max_words=max_words)
        for number in range(samples):
            chats.append(chat)
            origins.append(
                (row["pair_id"], number, writer.name, writer.model, policy.digest, digest_instruction())
            )
    drafts = writer(chats)  # in one call, so that it can batch them
    return tabulate_candidates(
        (*origin, draft.text, draft.complete) for origin, draft in zip(origins, drafts, strict=True)
    )


def build_instructed_chat(prompt: str, messages: Any, policy: Policy, *, max_words: int) -> Chat:
    """Put the policy before a pair's chat, as a system turn or at the head of the one that the chat has.

    Args:
        prompt: The pair's prompt, which is the only turn where there are no messages.
        messages: The prompt's messages as JSON, or null.
        policy: What the response must comply with.
        max_words: Words that the response may have.

    Returns:
        Messages that end with the user's turn.
    """
    rules = "".join(f"- {rule.description}\n" for rule in policy.rules)
    rules_section = f"Its rules:\n\n{rules}\n" if rules else ""
    text = INSTRUCTION.format(policy=policy.text.strip(), rules=rules_section, words=max_words)
    chat = json.loads(messages) if isinstance(messages, str) and messages else [_build_turn("user", prompt)]
    if chat[0]["role"] == "system":
        return [_build_turn("system", f"{text}\n\n{chat[0]['content']}"), *chat[1:]]
    return [_build_turn("system", text), *chat]


def _build_turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def collect_people_candidates(
    punish: pd.DataFrame, pairs: pd.DataFrame, written: pd.DataFrame
) -> pd.DataFrame:
    """Collect what people wrote for the PUNISH pairs: first in the pairs themselves, then in a file.

    Args:
        punish: PUNISH pairs.
        pairs: All pairs as they came in, with every correction, also those that an oracle rejected.
        written: The file: columns pair_id and correction, and optionally writer (a name); may be empty.

    Returns:
        CANDIDATE_COLUMNS, numbered within each pair; `model` has the writer's name.

    Raises:
        CandidateError: Columns are missing, no pair has a pair_id of the file, or a correction is no text.
    """
    in_data = pairs.loc[pairs["pair_id"].isin(punish["pair_id"]) & pairs["correction"].notna()]
    rows = [
        (pair_id, PEOPLE, text)
        for pair_id, text in zip(in_data["pair_id"], in_data["correction"], strict=True)
    ]
    rows += _read_file(written, set(pairs["pair_id"]), set(punish["pair_id"]))
    counts: Counter[str] = Counter()
    lines = []
    for pair_id, author, text in rows:
        lines.append((pair_id, counts[pair_id], PEOPLE, author, "", "", text, True))
        counts[pair_id] += 1
    return tabulate_candidates(lines)


def _read_file(written: pd.DataFrame, all_ids: set[str], punish_ids: set[str]) -> list[tuple[str, str, str]]:
    """Return pair_id, author and text of every correction in the file that a PUNISH pair needs."""
    if written.empty:
        return []
    missing_columns = [column for column in ("pair_id", "correction") if column not in written]
    if missing_columns:
        raise CandidateError(
            f"The file of corrections lacks {', '.join(missing_columns)}; found "
            f"{', '.join(map(str, written.columns))}. Expected: pair_id, correction, and optionally writer. "
            "Without such a file set `written_corrections: none`."
        )
    table = written.dropna(subset=["pair_id", "correction"]).assign(pair_id=lambda t: t["pair_id"].map(str))
    unknown_ids = sorted(set(table["pair_id"]) - all_ids)
    if unknown_ids:
        raise CandidateError(
            f"The file of corrections has {len(unknown_ids)} pair_id that no pair has (first: "
            f"{unknown_ids[0]!r}). Take them from `punish_pairs`; ids that are made from the texts change "
            "when a text does."
        )
    if not all(isinstance(text, str) for text in table["correction"]):
        raise CandidateError("The file of corrections has a correction that is not a text; expected texts.")
    authors: Iterable[Any]
    if "writer" in table:
        authors = table["writer"].fillna(_UNNAMED_WRITER)
    else:
        authors = [_UNNAMED_WRITER] * len(table)
    rows = zip(table["pair_id"], map(str, authors), table["correction"], strict=True)
    # A pair may have another disposition now than when it was corrected: then it needs no correction.
    return [(pair_id, author, text.strip()) for pair_id, author, text in rows if pair_id in punish_ids]


def check_origin(candidates: pd.DataFrame, punish: pd.DataFrame, policy_digest: str) -> None:
    """Make sure that candidates were written for these pairs under this policy.

    Args:
        candidates: CANDIDATE_COLUMNS, and possibly more.
        punish: PUNISH pairs.
        policy_digest: The digest of the new policy.

    Raises:
        CandidateError: They come from another run, or there are none.
    """
    if "pair_id" not in candidates:
        raise CandidateError("There are no corrections yet. Run `--pipelines corrections`.")
    other_pairs = set(candidates["pair_id"]) - set(punish["pair_id"])
    other_policies = set(candidates["policy"]) - {"", policy_digest}  # people name no policy
    if other_pairs or other_policies:
        raise CandidateError(
            f"The candidates come from another run: {len(other_pairs)} of their pairs are not among the "
            f"{len(punish)} PUNISH pairs, and {len(other_policies)} other policies were followed. Run "
            "`--pipelines corrections` again, or load all of its outputs in one version (`--load-versions`)."
        )


def tabulate_candidates(lines: Iterable[tuple[Any, ...]]) -> pd.DataFrame:
    """Build a table of CANDIDATE_COLUMNS from rows; its types survive Parquet, even without rows."""
    dtypes = dict.fromkeys(CANDIDATE_COLUMNS, "str") | {"candidate": "int64", "complete": "bool"}
    return pd.DataFrame(list(lines), columns=list(CANDIDATE_COLUMNS)).astype(dtypes)
