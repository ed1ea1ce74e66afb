"""Judge and triage clean pairs, part by part."""

import logging
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from realignment import judging, triage
from realignment.judge_stream.draws import RepeatedPairs, RetainDraw
from realignment.judge_stream.reading import show_progress
from realignment.oracles import Oracle
from realignment.oracles.factory import report_usage
from realignment.parameters import JudgingParameters, TriageParameters
from realignment.policy import Policy
from realignment.records import Counts, Disposition
from realignment.table_files import TableFile, TableWriter, WorkFolder

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TriagedPairs:
    """The results of the stages judging and triage.

    Attributes:
        pairs: Pairs of the splits: all, unless RETAIN pairs were drawn.
        judgments: Judgments of all pairs, in the order of `judging.judge_pairs`.
        splits: One table per disposition.
        oracle_report: `judging.measure_oracle`, with stability and usage.
        triage_report: `triage.report_triage` of all pairs.
    """

    pairs: TableFile
    judgments: TableFile
    splits: dict[Disposition, TableFile]
    oracle_report: dict[str, Any]
    triage_report: dict[str, Any]


def judge_and_triage(
    pairs: TableFile,
    policy: Policy,
    oracle: Oracle,
    parameters: JudgingParameters,
    *,
    triage_parameters: TriageParameters,
    max_retain: int | None,
    seed: int,
) -> TriagedPairs:
    """Judge all pairs, measure the oracle, and give every pair its disposition.

    Args:
        pairs: From `read_pairs`; the tables are made in its folder.
        policy: The policy to judge by.
        oracle: With a verdict store around it, a killed run continues where it was.
        parameters: Size of a part, and the limits of `judging.check_oracle`.
        triage_parameters: Parameters of the stage triage.
        max_retain: RETAIN pairs that are passed on, at most, drawn by `RetainDraw`; None: all.
        seed: Seed of that draw, and of the responses judged twice.

    Returns:
        Tables and reports of both stages.

    Raises:
        HealthError: As `judging.check_oracle`; too many unscored responses as soon as it is certain.
    """
    limits = {"max_unscored": parameters.max_unscored, "min_stability": parameters.min_stability}
    repeated = RepeatedPairs.draw(len(pairs), parameters.stability_sample, seed)
    verdict_counts = Counts()
    pair_counts = Counts()
    draw = RetainDraw(seed)
    parts = show_progress(pairs.parts(parameters.pairs_per_part), f"Judging by {oracle.name}", len(pairs))
    with _Writers(pairs.folder) as writers:
        for part in parts:
            judgments = judging.judge_pairs(part, policy, oracle)
            verdict_counts.update(judging.count_verdicts(part, judgments))
            # Checked against all responses: it stops as soon as the limit is exceeded for certain.
            partial = {"oracle": oracle.name, "n": 2 * len(pairs), "unscored": verdict_counts["unscored",]}
            judging.check_oracle(partial, judgments, **limits)
            triaged = triage.triage(part, judgments, min_confidence=triage_parameters.min_confidence)
            pair_counts.update(triage.count_pairs(triaged))
            writers.append(judgments, triaged)
            repeated.add(part, judgments)
            draw.add(triaged)
        report = judging.report_oracle(oracle.name, verdict_counts)
        report["stability"] = repeated.measure(policy, oracle, parameters.stability_sample, seed)
        report["usage"] = report_usage(oracle)
        judging.check_oracle(report, judgments, **limits)
        judged, splits = writers.finish()
    pairs, splits = _limit_retain(pairs, splits, draw, max_retain)
    triage_report = triage.report_counts(
        pair_counts,
        max_punish_share=triage_parameters.max_punish_share,
        retain_kept=len(splits[Disposition.RETAIN]),
    )
    return TriagedPairs(pairs, judged, splits, report, triage_report)


class _Writers:
    """Writes one file per kind of response, so that judgments keep their order, and one file per split."""

    def __init__(self, folder: WorkFolder) -> None:
        self._folder = folder
        self._open = ExitStack()
        self._responses = {
            name: TableWriter(folder, f"{name}_judgments") for name in judging.JUDGED_RESPONSES
        }
        self._splits = {d: TableWriter(folder, f"{d.lower()}_pairs") for d in Disposition}

    def __enter__(self) -> "_Writers":
        for writer in (*self._responses.values(), *self._splits.values()):
            self._open.enter_context(writer)
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

    def append(self, judgments: pd.DataFrame, triaged: pd.DataFrame) -> None:
        for response, writer in self._responses.items():
            writer.append(judgments[judgments["response"] == response])
        for disposition, table in triage.split_by_disposition(triaged).items():
            self._splits[disposition].append(table)

    def finish(self) -> tuple[TableFile, dict[Disposition, TableFile]]:
        """Return the table of all judgments, and the splits."""
        parts = [writer.finish() for writer in self._responses.values()]
        splits = {disposition: writer.finish() for disposition, writer in self._splits.items()}
        return _join(parts, self._folder), splits


def _limit_retain(
    pairs: TableFile, splits: dict[Disposition, TableFile], draw: RetainDraw, max_retain: int | None
) -> tuple[TableFile, dict[Disposition, TableFile]]:
    """Return the pairs and the splits with `max_retain` RETAIN pairs, drawn at random."""
    retained = splits[Disposition.RETAIN]
    if max_retain is None or max_retain >= len(retained):
        return pairs, splits
    logger.warning("%d of %d RETAIN pairs are passed on (`streaming.max_retain`)", max_retain, len(retained))
    limit = draw.find_limit(max_retain)
    drawn = _select(retained, "kept_retain_pairs", draw.numbers(Disposition.RETAIN) <= limit)
    # The number of every other pair is 0, so that all of them stay.
    selected = _select(pairs, "kept_pairs", draw.numbers() <= limit)
    return selected, splits | {Disposition.RETAIN: drawn}


def _join(tables: list[TableFile], folder: WorkFolder) -> TableFile:
    """Write tables one after the other into one; their own files are deleted."""
    with TableWriter(folder, "judgments") as joined:
        for table in tables:
            for part in table.parts():
                joined.append(part)
            table.path.unlink()
        return joined.finish()


def _select(table: TableFile, name: str, keep: npt.NDArray[np.bool_]) -> TableFile:
    """Write the rows where `keep` is true to a new table; the old table's file is deleted."""
    position = 0
    with TableWriter(table.folder, name) as selected:
        for part in table.parts():
            selected.append(part[keep[position : position + len(part)]])
            position += len(part)
        table.path.unlink()
        return selected.finish()
