"""`align` makes a reference model by DPO on the old labels, and `realign` starts from it by its name."""

import json

import pandas as pd
import pytest
from command_line import kedro, saved
from mlflow_store import client

pytestmark = pytest.mark.slow


def read(entry):
    return json.loads(saved(entry).read_text(encoding="utf-8"))


def test_a_reference_model_is_made_registered_and_found_by_its_alias(tmp_path, tiny_model):
    alignment = kedro("--pipelines", "align", data_root=tmp_path, model_source=tiny_model)
    assert alignment.exit_code == 0, alignment.output
    registered = read(tmp_path / "06_models/registered_reference.json")
    pairs, training, held_out = (
        pd.read_parquet(saved(tmp_path / entry))
        for entry in (
            "02_intermediate/align_pairs.parquet",
            "05_model_input/align_training_pairs.parquet",
            "05_model_input/align_held_out_pairs.parquet",
        )
    )
    assert len(held_out) == 5
    assert len(training) == len(pairs) - 5
    table = pd.read_csv(saved(tmp_path / "08_reporting/align_table.csv")).set_index("metric")
    assert (table["n"] == 5).all()
    assert table.loc["implicit_accuracy", "before"] == 0.5
    assert "held-out pairs the aligned model prefers the chosen response" in alignment.output
    version = client().get_model_version_by_alias(registered["name"], "champion")
    assert version.tags["policy_version"] == "1"
    uri = f"models:/{registered['name']}@champion"
    loading = kedro("--pipelines", "model", data_root=tmp_path, model_source=uri)
    assert loading.exit_code == 0, loading.output
    reference = read(tmp_path / "06_models/reference_model.json")
    assert registered["source"].endswith(reference["path"])
