"""Clean pairs → judgments and splits, part by part."""

import logging
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from realignment import judging, triage
from realignment.judge_stream.draws import RepeatedPairs, RetainDraw
from realignment.judge_stream.reading import shown
from realignment.oracles import Oracle
from realignment.oracles.factory import report_usage
from realignment.parameters import JudgingParameters, TriageParameters
from realignment.policy import Policy
from realignment.records import Counts, Disposition
from realignment.table_files import TableFile, TableWriter, WorkFolder

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TriagedPairs:
    """What the stages judging and triage make of clean pairs.

    Attributes:
        pairs: Those of the splits: all, unless RETAIN pairs were drawn.
        judgments: Of all pairs, in the order of `judging.judge_pairs`.
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
    """Judge, measure the oracle, and give every pair its disposition.

    Args:
        pairs: From `read_pairs`; the tables are made in its folder.
        policy: To judge by.
        oracle: Who judges; with a store around it a killed run goes on where it was.
        parameters: Size of a part, and the limits on doubt.
        triage_parameters: Of the stage.
        max_retain: At most so many RETAIN pairs are handed on, those with the smallest numbers that seed and
            pair_id make; None: all.
        seed: Of that draw, and of the responses judged twice.

    Raises:
        HealthError: As `judging.check_oracle`; too many unscored responses as soon as it is certain.
    """
    limits = {"max_unscored": parameters.max_unscored, "min_stability": parameters.min_stability}
    repeated = RepeatedPairs.draw(len(pairs), parameters.stability_sample, seed)
    verdicts, counts, draw = Counts(), Counts(), RetainDraw(seed)
    parts = shown(pairs.parts(parameters.pairs_of_a_part), f"Judging by {oracle.name}", len(pairs))
    with _Writers(pairs.folder) as writers:
        for part in parts:
            judgments = judging.judge_pairs(part, policy, oracle)
            verdicts.update(judging.count_verdicts(part, judgments))
            so_far = {"oracle": oracle.name, "n": 2 * len(pairs), "unscored": verdicts["unscored",]}
            judging.check_oracle(so_far, judgments, **limits)
            triaged = triage.triage(part, judgments, min_confidence=triage_parameters.min_confidence)
            counts.update(triage.count_pairs(triaged))
            writers.append(judgments, triaged)
            repeated.add(part, judgments)
            draw.add(triaged)
        report = judging.report_oracle(oracle.name, verdicts)
        report["stability"] = repeated.measure(policy, oracle, parameters.stability_sample, seed)
        report["usage"] = report_usage(oracle)
        judging.check_oracle(report, judgments, **limits)
        judged, splits = writers.finish()
    pairs, splits = _bound(pairs, splits, draw, max_retain)
    triage_report = triage.report_counts(
        counts,
        max_punish_share=triage_parameters.max_punish_share,
        retain_kept=len(splits[Disposition.RETAIN]),
    )
    return TriagedPairs(pairs, judged, splits, report, triage_report)


class _Writers:
    """One file for each kind of response, so that judgments come in their order, and one for each split."""

    def __init__(self, folder: WorkFolder) -> None:
        self._folder, self._open = folder, ExitStack()
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
        for disposition, table in triage.split(triaged).items():
            self._splits[disposition].append(table)

    def finish(self) -> tuple[TableFile, dict[Disposition, TableFile]]:
        """All judgments, and the splits."""
        parts = [writer.finish() for writer in self._responses.values()]
        return _join(parts, self._folder), {d: writer.finish() for d, writer in self._splits.items()}


def _bound(
    pairs: TableFile, splits: dict[Disposition, TableFile], draw: RetainDraw, max_retain: int | None
) -> tuple[TableFile, dict[Disposition, TableFile]]:
    """The pairs and the splits, with the RETAIN pairs that are drawn."""
    retained = splits[Disposition.RETAIN]
    if max_retain is None or max_retain >= len(retained):
        return pairs, splits
    logger.warning("%d of %d RETAIN pairs go on (`streaming.max_retain`)", max_retain, len(retained))
    highest = draw.highest(max_retain)
    kept = _select(retained, "kept_retain_pairs", draw.numbers(Disposition.RETAIN) <= highest)
    return _select(pairs, "kept_pairs", draw.numbers() <= highest), splits | {Disposition.RETAIN: kept}


def _join(tables: list[TableFile], folder: WorkFolder) -> TableFile:
    with TableWriter(folder, "judgments") as joined:
        for table in tables:
            for part in table.parts():
                joined.append(part)
            table.path.unlink()
        return joined.finish()


def _select(table: TableFile, name: str, keep: npt.NDArray[np.bool_]) -> TableFile:
    """The rows where `keep` is true; the table's own file goes."""
    position = 0
    with TableWriter(table.folder, name) as selected:
        for part in table.parts():
            selected.append(part[keep[position : position + len(part)]])
            position += len(part)
        table.path.unlink()
        return selected.finish()
