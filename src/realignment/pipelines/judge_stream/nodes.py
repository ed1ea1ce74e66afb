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
    from realignment.oracles.factory import build_oracle

    folder = WorkFolder(Path(work_folder) / "streams")
    size = judging.chunk_size
    clean = judge_stream.read_pairs(pair_files, policy, intake, folder=folder, size=size, seed=seed)
    log_intake(clean.report, len(pair_files))
    oracle = build_oracle(judging, clean.pairs)
    results = judge_stream.judge_and_triage(
        clean.pairs,
        policy,
        oracle,
        judging,
        triage_parameters=triage,
        max_retain=parameters.max_retain,
        seed=seed,
    )
    log_triage(results.triage_report)
    splits = {f"{d.lower()}_pairs": results.splits[d] for d in Disposition}
    facts = lineage.judging_facts(policy, oracle.name)
    tables = {"pairs": results.pairs, "judgments": results.judgments}
    judging_manifest = lineage.build_manifest(
        "judging", inputs={"pairs": results.pairs}, outputs=tables, **facts
    )
    triage_manifest = lineage.build_manifest("triage", inputs=tables, outputs=splits, **facts)
    reports = (clean.report, results.oracle_report, results.triage_report)
    written_tables = (results.pairs, results.judgments, clean.rejected_rows, *splits.values())
    return (*written_tables, *reports, judging_manifest, triage_manifest)
