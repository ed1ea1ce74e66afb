"""Judging and triage of a file that is larger than memory: read, judged, triaged and written part by part.

What is held at once is one chunk, and of every pair so far two hashes of 8 bytes, which tell repeated rows.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from realignment import intake
from realignment.intake.chunks import read_chunks
from realignment.intake.formats import PreferenceFormat, detect_format
from realignment.judging import judge_pairs
from realignment.oracles import Oracle
from realignment.policy import Policy
from realignment.records import DataError, Disposition
from realignment.triage import split, triage

_FLAGS = ("chosen_complies", "rejected_complies", "chosen_verdict", "rejected_verdict", "complies")
_WHOLE = ("row", "chosen_severity", "rejected_severity")
_KINDS = (
    {"confidence": pa.float64()} | dict.fromkeys(_WHOLE, pa.int64()) | {name: pa.bool_() for name in _FLAGS}
)


def judge_and_triage(
    source: str,
    target: Path,
    policy: Policy,
    oracle: Oracle,
    *,
    min_confidence: float,
    chunk_size: int = 5000,
    max_prompt_chars: int = 8000,
) -> dict[str, Any]:
    """The dispositions that the stages judging and triage give, from file to files.

    Writes ``<disposition>_pairs.parquet``, ``judgments.parquet`` and ``rejected_rows.parquet`` into `target`,
    all of them once everything is done, none before.

    Args:
        source: Parquet or JSON Lines, in any format of preference pairs.
        target: Folder; made if it is missing.
        policy: To judge by.
        oracle: Who judges; with a store around it a killed run goes on where it was.
        min_confidence: As `triage.triage` has it.
        chunk_size: Pairs at a time.
        max_prompt_chars: Longer prompts are rejected rows.

    Returns:
        rows, pairs, rejected, unscored (chosen and rejected responses without a verdict), counts (disposition
        → pairs).
    """
    counts: Counter[str] = Counter()
    with _writing(target) as write, tqdm(desc=f"Judging by {oracle.name}", unit="pair", disable=None) as bar:
        for part in _clean_chunks(source, chunk_size, max_prompt_chars):
            judgments = judge_pairs(part.pairs, policy, oracle)
            splits = split(triage(part.pairs, judgments, min_confidence=min_confidence))
            write("judgments", judgments)
            write("rejected_rows", part.rejected_rows)
            for disposition, table in splits.items():
                write(f"{disposition.lower()}_pairs", table)
            counts.update({str(disposition): len(table) for disposition, table in splits.items()})
            scored = judgments[judgments["response"] != "correction"]
            counts["unscored"] += int(scored["complies"].isna().sum())
            counts["rejected"] += len(part.rejected_rows)
            bar.update(len(part.pairs))
        return _report(counts, source)


def _report(counts: Counter[str], source: str) -> dict[str, Any]:
    dispositions = {str(disposition): counts[disposition] for disposition in Disposition}
    pairs = sum(dispositions.values())
    if not pairs:
        raise DataError(f"None of the {counts['rejected']} rows of {source} can be used.")
    totals = {name: counts[name] for name in ("rejected", "unscored")}
    return {"rows": pairs + counts["rejected"], "pairs": pairs} | totals | {"counts": dispositions}


def _clean_chunks(source: str, size: int, max_prompt_chars: int) -> Iterator[intake.Intake]:
    layout: PreferenceFormat | None = None
    seen = _Seen()
    for raw in read_chunks(source, size):
        layout = layout or detect_format(raw)
        part = intake.clean_rows(
            raw, layout, invalid="skip", max_prompt_chars=max_prompt_chars, long_prompts="drop"
        )
        yield seen.set_repeated_aside(part, raw.index)


@dataclass
class _Seen:
    """Which pairs earlier chunks had, as sorted hashes of 64 bits.

    Two of 10 million pairs have equal hashes by chance with a probability of 3 in a million.
    """

    ids: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint64))
    contents: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint64))

    def set_repeated_aside(self, part: intake.Intake, rows: pd.Index) -> intake.Intake:
        """The chunk without pairs that an earlier one had; they join its rejected rows."""
        texts = part.pairs[["prompt", "chosen", "rejected", "messages"]].fillna("")
        contents = pd.util.hash_pandas_object(texts, index=False).to_numpy()
        ids = pd.util.hash_pandas_object(part.pairs["pair_id"], index=False).to_numpy()
        same_content, same_id = _are_in(self.contents, contents), _are_in(self.ids, ids)
        self.contents, self.ids = _merge(self.contents, contents), _merge(self.ids, ids)
        repeated = same_content | same_id
        if not repeated.any():
            return part
        usable = rows[~rows.isin(part.rejected_rows["row"])]
        rejected = pd.DataFrame(
            {
                "row": usable[repeated],
                "field": np.where(same_content, "prompt", "pair_id")[repeated],
                "reason": "the same as in an earlier row",
                "pair_id": part.pairs["pair_id"][repeated].to_numpy(),
                "content": part.pairs["prompt"][repeated].str[:200].to_numpy(),
            }
        )
        return intake.Intake(
            part.pairs[~repeated].reset_index(drop=True),
            pd.concat([part.rejected_rows, rejected], ignore_index=True),
            part.report,
        )


def _are_in(known: np.ndarray, hashes: np.ndarray) -> np.ndarray:
    """Whether each hash is among the sorted known ones, which `isin` would sort again for every chunk."""
    if not len(known):
        return np.zeros(len(hashes), bool)
    places = np.searchsorted(known, hashes).clip(max=len(known) - 1)
    found: np.ndarray = known[places] == hashes
    return found


def _merge(known: np.ndarray, hashes: np.ndarray) -> np.ndarray:
    added = np.sort(hashes)
    return np.insert(known, np.searchsorted(known, added), added)


@contextmanager
def _writing(target: Path) -> Iterator[Any]:
    """A function that appends a table to the Parquet file of a name; the files appear when all is written."""
    target.mkdir(parents=True, exist_ok=True)
    writers: dict[str, pq.ParquetWriter] = {}
    with ExitStack() as open_files:

        def write(name: str, table: pd.DataFrame) -> None:
            if name not in writers:
                schema = pa.schema([(column, _KINDS.get(column, pa.string())) for column in table.columns])
                writers[name] = open_files.enter_context(pq.ParquetWriter(_partial(target, name), schema))
            writers[name].write_table(
                pa.Table.from_pandas(table, schema=writers[name].schema, preserve_index=False)
            )

        yield write
    for name in writers:
        _partial(target, name).rename(target / f"{name}.parquet")


def _partial(target: Path, name: str) -> Path:
    return target / f"{name}.parquet.partial"
