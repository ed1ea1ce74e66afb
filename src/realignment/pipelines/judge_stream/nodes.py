"""The node of the pipeline `judge_stream`."""

from pathlib import Path
from typing import Any

from realignment.intake.shards import Shards
from realignment.parameters import IntakeParameters, JudgingParameters, StreamingParameters, TriageParameters
from realignment.pipelines.judging.nodes import log_intake
from realignment.pipelines.triage.nodes import log_triage
from realignment.policy import Policy
from realignment.records import Disposition
from realignment.table_files import TableFile, WorkFolder
from realignment.tracking import lineage


def judge_in_parts(
    pair_files: Shards,
    policy: Policy,
    intake: IntakeParameters,
    judging: JudgingParameters,
    triage: TriageParameters,
    parameters: StreamingParameters,
    seed: int,
    work_folder: str,
) -> tuple[TableFile | dict[str, Any], ...]:
    """Clean, judge and triage the pairs, a part at a time; every table is a file that the catalog takes."""
    from realignment import judge_stream
    from realignment.oracles.factory import appoint

    folder = WorkFolder(Path(work_folder) / "streams")
    size = judging.chunk_size
    clean = judge_stream.read_pairs(pair_files, policy, intake, folder=folder, size=size, seed=seed)
    log_intake(clean.report, len(pair_files))
    oracle = appoint(judging, clean.pairs)
    found = judge_stream.judge_and_triage(
        clean.pairs,
        policy,
        oracle,
        judging,
        triage_parameters=triage,
        max_retain=parameters.max_retain,
        seed=seed,
    )
    log_triage(found.triage_report)
    splits = {f"{d.lower()}_pairs": found.splits[d] for d in Disposition}
    facts = {"policy": policy.digest, "policy_version": policy.version, "oracle": oracle.name}
    read = {"pairs": found.pairs, "judgments": found.judgments}
    judged = lineage.seal("judging", inputs={"pairs": found.pairs}, outputs=read, **facts)
    triaged = lineage.seal("triage", inputs=read, outputs=splits, **facts)
    reports = (clean.report, found.oracle_report, found.triage_report)
    return (found.pairs, found.judgments, clean.rejected_rows, *splits.values(), *reports, judged, triaged)
