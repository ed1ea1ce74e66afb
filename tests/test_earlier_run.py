"""What a run left before the code moved house is still read, or refused with what to do.

`earlier_run/` was written by commit d16ca93, whose modules had other names and places.
"""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from command_line import saved

from realignment.oracles.cached import CachedOracle, VerdictStore
from realignment.oracles.chat import ChatOracle
from realignment.oracles.classifier import ClassifierError
from realignment.oracles.trained_classifier import read_trained_classifier
from realignment.parameters import ChatParameters
from realignment.policy import read_policy
from realignment.records import Exchange
from realignment.tracking import lineage

EARLIER = Path(__file__).with_name("earlier_run")
POLICY = EARLIER / "policy.yml"
TABLES = {
    "judging": ("02_intermediate", ["pairs", "judgments"]),
    "triage": ("03_primary", ["invert_pairs", "punish_pairs", "retain_pairs", "review_pairs"]),
    "corrections": ("03_primary", ["invert_pairs", "corrected_pairs", "retain_pairs"]),
    "gold": ("05_model_input", ["held_out_pairs", "gold_batch", "training_pairs"]),
}


@pytest.fixture(scope="module")
def data_root(tmp_path_factory, kedro_in_process):
    """The same pairs through the same stages by the present code."""
    root = tmp_path_factory.mktemp("earlier") / "data"
    done = kedro_in_process(
        "--pipelines", "judging,triage,corrections,gold", env="local",
        data_root=root, pairs=EARLIER / "pairs.jsonl", policy=POLICY, old_policy=POLICY, gold__size=3,
    )  # fmt: skip
    assert done.exit_code == 0, done.output[-2000:]
    return root


@pytest.mark.parametrize("stage", TABLES)
def test_tables_of_today_have_the_digests_of_an_earlier_manifest(data_root, stage):
    earlier = json.loads((EARLIER / f"manifests/{stage}_manifest.json").read_text())
    folder, names = TABLES[stage]
    tables = {name: pd.read_parquet(saved(data_root / folder / f"{name}.parquet")) for name in names}
    lineage.check_tables(earlier, tables)
    lineage.check_policy(earlier, read_policy(POLICY).digest)
    today = json.loads(saved(data_root / folder / f"{stage}_manifest.json").read_text())
    assert {key: today[key] for key in earlier} == earlier


def test_verdicts_of_an_earlier_store_are_not_asked_for_again(tmp_path):
    shutil.copy(EARLIER / "verdicts.sqlite", tmp_path)
    settings = ChatParameters.model_validate_json((EARLIER / "chat.json").read_text())
    oracle = CachedOracle(ChatOracle(settings), VerdictStore(tmp_path / "verdicts.sqlite"))
    rows = [json.loads(line) for line in (EARLIER / "pairs.jsonl").read_text().splitlines()]
    judgments = oracle([Exchange(row["prompt"], row["chosen"]) for row in rows], read_policy(POLICY))
    assert [judgment.complies for judgment in judgments] == ["euros" not in row["chosen"] for row in rows]
    assert (oracle.usage.stored, oracle.usage.requests) == (16, 0)


def test_an_earlier_classifier_is_refused_with_what_to_do():
    with pytest.raises(ClassifierError, match=r"cannot be read as a classifier.*Train it again"):
        read_trained_classifier(EARLIER / "classifier.joblib")
