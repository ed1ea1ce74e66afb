"""The nodes of the stage where there is nothing to correct, and where splits do not belong together."""

import pandas as pd
import pytest
from made_up_pairs import make_pairs

from realignment.parameters import CorrectionsParameters, JudgingParameters
from realignment.parameters.base import ModelParameters
from realignment.pipelines.corrections import nodes
from realignment.policy import parse_policy
from realignment.records import digest_table
from realignment.tracking.lineage import LineageError, build_manifest

POLICY = parse_policy(
    {"name": "a", "version": "2", "text": "t", "rules": [
        {"id": "short", "description": "Short.", "check": {"kind": "length", "max_words": 5}}]},
    source="test",
)  # fmt: skip
PAIRS = make_pairs({}, {}, {"correction": "so it is"}).astype({"correction": "str"})
JUDGING, SETTINGS = JudgingParameters(oracle="rules"), CorrectionsParameters()


def splits(punish):
    invert, retain = PAIRS.iloc[:1], PAIRS.iloc[1:2]
    return {"invert_pairs": invert, "punish_pairs": punish, "retain_pairs": retain}


def manifest(tables):
    facts = {"policy": POLICY.digest, "policy_version": "2", "oracle": "rules"}
    return build_manifest("triage", inputs={}, outputs=tables, **facts)


def run(punish):
    tables = splits(punish)
    sealed = manifest(tables)
    model = ModelParameters(source="unused", folder="unused")
    written = nodes.write_candidates(
        punish, PAIRS, sealed, pd.DataFrame(), POLICY, model, JUDGING, SETTINGS, 0
    )
    verified = nodes.verify_candidates(written, punish, PAIRS, sealed, POLICY, JUDGING, SETTINGS, 0)
    corrected, report, done = nodes.correct_pairs(*tables.values(), sealed, verified)
    return verified, corrected, report, done


@pytest.mark.parametrize("number", [0, 1])
def test_the_stage_hands_on_what_it_read_with_its_digests(number, tmp_path):
    punish = PAIRS.iloc[2:].head(number).reset_index(drop=True)
    verified, corrected, report, done = run(punish)
    assert (report["pairs"], report["corrected"], len(verified)) == (number, number, number)
    assert done["outputs"]["corrected_pairs"] == digest_table(corrected)
    assert set(done["outputs"]) == {"invert_pairs", "corrected_pairs", "retain_pairs"}
    assert (done["policy"], done["verifier"]) == (POLICY.digest, "rules" if number else None)
    for table in (verified, corrected):
        table.to_parquet(tmp_path / "t.parquet")
        assert digest_table(pd.read_parquet(tmp_path / "t.parquet")) == digest_table(table)
    leakage = nodes.measure_leakage(verified, pd.DataFrame(), POLICY, 0)
    assert leakage.empty
    assert nodes.draw_leakage(leakage).layout.annotations


def test_splits_of_another_run_are_refused():
    sealed = manifest(splits(PAIRS.iloc[2:]))
    with pytest.raises(LineageError, match="punish_pairs"):
        nodes.verify_candidates(pd.DataFrame(), PAIRS.iloc[:1], PAIRS, sealed, POLICY, JUDGING, SETTINGS, 0)
