"""Who writes corrections: the reference model itself with the policy before it, a chat server, or people."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pandas as pd

from realignment.policy import Policy
from realignment.records import DataError
from realignment.tokenization import chat_messages

PEOPLE = "people"
"""Writer of what comes with the data."""

CANDIDATE_COLUMNS = ("pair_id", "candidate", "writer", "model", "policy", "instruction", "response", "complete")

INSTRUCTION = (
    "You follow this policy in everything that you write:\n\n{policy}\n\n"
    "Answer the user so that your answer keeps to the policy and is as useful as it can be within it. Write the "
    "answer alone: do not mention the policy."
)
"""The system prompt of a writer; its digest is on every row."""


class WriterError(DataError):
    """Corrections cannot be written, or those that people wrote cannot be read."""


@dataclass(frozen=True, slots=True)
class Draft:
    """One answer of a writer; `complete`: it ended by itself and was not cut at a limit."""

    text: str
    complete: bool


Chat = list[dict[str, str]]


class Writer(Protocol):
    """Anything that answers chats."""

    @property
    def name(self) -> str:
        """What reports call it."""
        ...

    @property
    def model(self) -> str:
        """Which model it is, and in which version."""
        ...

    def __call__(self, chats: Sequence[Chat]) -> list[Draft]:
        """One draft per chat, in order; chats that repeat get drafts of their own."""
        ...


def instruction_digest() -> str:
    """sha256 of the instruction, cut to 12 characters: another wording, another digest."""
    return hashlib.sha256(INSTRUCTION.encode()).hexdigest()[:12]


def instructed_chat(prompt: str, messages: str | None, policy: Policy, *, system_role: bool = True) -> Chat:
    """The pair's chat with the policy before it.

    Args:
        prompt: The pair's.
        messages: Its messages as JSON, where the prompt is more than one user turn.
        policy: The new policy.
        system_role: Whether the model knows a system turn; else the policy stands before the first user turn.
    """
    text = INSTRUCTION.format(policy=policy.text.strip())
    chat = chat_messages(prompt, messages)
    if chat[0]["role"] == "system":
        return [{"role": "system", "content": f"{text}\n\n{chat[0]['content']}"}, *chat[1:]]
    if system_role:
        return [{"role": "system", "content": text}, *chat]
    return [{**chat[0], "content": f"{text}\n\n{chat[0]['content']}"}, *chat[1:]]


def write_candidates(
    pairs: pd.DataFrame, policy: Policy, writer: Writer, *, samples: int, system_role: bool = True
) -> pd.DataFrame:
    """`samples` drafts per pair, as rows of CANDIDATE_COLUMNS."""
    rows: list[dict[str, Any]] = pairs.to_dict("records")  # type: ignore[assignment]
    chats = [
        instructed_chat(row["prompt"], row["messages"], policy, system_role=system_role) for row in rows
    ]
    drafts = writer([chat for chat in chats for _ in range(samples)])
    lines = [
        (row["pair_id"], number, writer.name, writer.model, policy.digest, instruction_digest())
        for row in rows
        for number in range(samples)
    ]
    return to_table((*line, draft.text, draft.complete) for line, draft in zip(lines, drafts, strict=True))


def people_candidates(punish: pd.DataFrame, pairs: pd.DataFrame, written: pd.DataFrame) -> pd.DataFrame:
    """What people wrote for the PUNISH pairs: the column `correction` of the pairs, then the file of its own.

    Args:
        punish: PUNISH pairs.
        pairs: All pairs as they came in, with every correction, also those that an oracle did not let pass.
        written: Columns pair_id and correction, and optionally writer (a name); may be empty.

    Raises:
        WriterError: Columns are missing, or a pair_id is unknown to the pairs.
    """
    given = pairs.loc[pairs["pair_id"].isin(punish["pair_id"]) & pairs["correction"].notna()]
    rows = [(pair_id, PEOPLE, text) for pair_id, text in zip(given["pair_id"], given["correction"], strict=True)]
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
        raise WriterError(
            f"The file of corrections lacks {', '.join(missing)}; found {', '.join(map(str, written.columns))}. "
            "Expected: pair_id and correction, and optionally writer. Without such a file set "
            "`written_corrections: none`."
        )
    table = written.dropna(subset=["pair_id", "correction"]).assign(pair_id=lambda t: t["pair_id"].map(str))
    if strangers := sorted(set(table["pair_id"]) - known):
        raise WriterError(
            f"The file of corrections has {len(strangers)} pair_id that no pair has (first: {strangers[0]!r}). "
            "Take them from `punish_pairs`; ids that are made from the texts change when a text does."
        )
    names = table["writer"].fillna(PEOPLE) if "writer" in table else [PEOPLE] * len(table)
    rows = zip(table["pair_id"], map(str, names), table["correction"], strict=True)
    # A pair may have moved to another disposition since it was written for: then it needs none.
    return [(pair_id, who, text) for pair_id, who, text in rows if pair_id in wanted]


def to_table(lines: Any) -> pd.DataFrame:
    """Rows as a table of CANDIDATE_COLUMNS whose types survive Parquet, none included."""
    kinds = dict.fromkeys(CANDIDATE_COLUMNS, "str") | {"candidate": "int64", "complete": "bool"}
    return pd.DataFrame(list(lines), columns=list(CANDIDATE_COLUMNS)).astype(kinds)


@dataclass(frozen=True)
class ModelWriter:
    """A causal language model in process: M_ref, with the policy as its system prompt."""

    loaded: Any
    tokenizer: Any
    model: str
    sampling: Any
    max_new_tokens: int
    batch_size: int
    repetition_penalty: float
    name: str = "model"

    def __call__(self, chats: Sequence[Chat]) -> list[Draft]:
        """Sampled answers, in batches."""
        from realignment.evaluation.generation import answer

        answers = answer(
            self.loaded,
            self.tokenizer,
            chats,
            max_new_tokens=self.max_new_tokens,
            batch_size=self.batch_size,
            repetition_penalty=self.repetition_penalty,
            sampling=self.sampling,
            progress="Corrections",
        )
        return [Draft(one.text, one.complete) for one in answers]


def takes_system_role(tokenizer: Any) -> bool:
    """Whether the chat template knows a system turn: some raise, some leave it out."""
    from jinja2 import TemplateError

    marker = "4f1c"
    chat = [{"role": "system", "content": marker}, {"role": "user", "content": "?"}]
    try:
        return marker in str(tokenizer.apply_chat_template(chat, tokenize=False))
    except TemplateError:
        return False


def describe_settings(settings: dict[str, Any]) -> str:
    """Settings of a writer as one short digest, for the manifest."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
