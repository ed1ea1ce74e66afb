"""Files appear whole or not at all, and a damaged checkpoint is never loaded."""

import inspect
import json
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go
import pytest
from kedro.io import DataCatalog, DatasetError, Version

from realignment.datasets import (
    CheckpointDataset,
    CSVDataset,
    FigureDataset,
    JSONDataset,
    OptionalJSONDataset,
    OptionalParquetDataset,
    ParquetDataset,
    PolicyDataset,
    TextDataset,
    check_checkpoint,
)

TABLE = pd.DataFrame({"pair_id": ["a", "b"], "score": [0.5, -1.0]})
FIRST, SECOND = "2026-01-01T00.00.00.000Z", "2026-01-02T00.00.00.000Z"


def versioned(kind, path, version, **arguments):
    return kind(filepath=str(path), version=Version(None, version), **arguments)


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (ParquetDataset, TABLE), (CSVDataset, TABLE), (JSONDataset, {"a": [1]}), (TextDataset, "<p>page</p>"),
        (FigureDataset, go.Figure(go.Bar(x=["a"], y=[1]))),
    ],
)  # fmt: skip
def test_atomic_datasets_give_back_what_they_saved_and_leave_no_partial_file(tmp_path, kind, data):
    arguments = {"save_args": {"index": False}} if kind is CSVDataset else {}
    dataset = versioned(kind, tmp_path / "entry", FIRST, **arguments)
    dataset.save(data)
    loaded = dataset.load()
    if isinstance(data, pd.DataFrame):
        pd.testing.assert_frame_equal(loaded, data)
    else:
        assert loaded == data
    assert [file.name for file in (tmp_path / "entry" / FIRST).iterdir()] == ["entry"]
    with pytest.raises(DatasetError, match="must not exist"):
        dataset.save(data)


def test_a_failed_save_leaves_the_version_before_it_the_newest(tmp_path):
    versioned(JSONDataset, tmp_path / "report.json", FIRST).save({"n": 1})
    with pytest.raises(DatasetError, match="not JSON serializable"):
        versioned(JSONDataset, tmp_path / "report.json", SECOND).save({"n": 2, "bad": object()})
    assert JSONDataset(filepath=str(tmp_path / "report.json"), version=Version(None, None)).load() == {"n": 1}
    assert not list(tmp_path.rglob("*.partial"))


def test_an_unversioned_file_is_replaced(tmp_path):
    dataset = JSONDataset(filepath=str(tmp_path / "summary.json"))
    dataset.save({"n": 1})
    dataset.save({"n": 2})
    assert dataset.load() == {"n": 2}


def test_previews_keep_the_return_types_that_kedro_viz_reads():
    previews = {
        kind: kind.preview
        for kind in (ParquetDataset, CSVDataset, JSONDataset, FigureDataset, CheckpointDataset)
    }
    names = [
        getattr(p, "__name__", p) for p in (inspect.signature(f).return_annotation for f in previews.values())
    ]
    assert names == ["TablePreview", "TablePreview", "JSONPreview", "PlotlyPreview", "JSONPreview"]


def make_checkpoint(folder: Path) -> Path:
    (folder / "adapter").mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "model.safetensors").write_bytes(b"weights" * 100)
    (folder / "adapter" / "adapter_config.json").write_text("{}")
    return folder


def test_a_checkpoint_moves_into_its_version_and_its_path_comes_back(tmp_path):
    source = make_checkpoint(tmp_path / "work")
    dataset = versioned(CheckpointDataset, tmp_path / "model", FIRST)
    assert not dataset.exists()
    dataset.save(str(source))
    path = Path(dataset.load())
    assert path == tmp_path / "model" / FIRST / "model"
    assert not source.exists()
    assert dataset.exists()
    assert (path / "adapter" / "adapter_config.json").is_file()
    assert len(check_checkpoint(path)) == 64
    assert json.loads(dataset.preview())["config"] == {"model_type": "llama"}


def test_a_saved_checkpoint_that_a_node_passes_on_is_copied_not_taken(tmp_path):
    first = versioned(CheckpointDataset, tmp_path / "model", FIRST)
    first.save(str(make_checkpoint(tmp_path / "work")))
    second = versioned(CheckpointDataset, tmp_path / "other", SECOND)
    second.save(first.load())
    assert check_checkpoint(Path(first.load())) == check_checkpoint(Path(second.load()))


def test_a_damaged_checkpoint_is_refused_with_the_file_named(tmp_path):
    dataset = versioned(CheckpointDataset, tmp_path / "model", FIRST)
    dataset.save(str(make_checkpoint(tmp_path / "work")))
    weights = tmp_path / "model" / FIRST / "model" / "model.safetensors"
    weights.write_bytes(b"cut")
    with pytest.raises(DatasetError, match=r"model\.safetensors should have 700 bytes, found 3"):
        dataset.load()
    weights.unlink()
    with pytest.raises(DatasetError, match="found no file"):
        dataset.load()


def test_a_folder_without_config_is_no_checkpoint(tmp_path):
    (tmp_path / "work").mkdir()
    dataset = CheckpointDataset(filepath=str(tmp_path / "model"))
    with pytest.raises(DatasetError, match=r"expected a `save_pretrained` folder with config\.json"):
        dataset.save(str(tmp_path / "work"))
    with pytest.raises(DatasetError, match=r"no readable checkpoint\.json"):
        dataset.load()


def test_a_half_moved_checkpoint_is_never_the_newest(tmp_path):
    versioned(CheckpointDataset, tmp_path / "model", FIRST).save(str(make_checkpoint(tmp_path / "work")))
    make_checkpoint(tmp_path / "model" / SECOND / "model.partial")
    newest = CheckpointDataset(filepath=str(tmp_path / "model"), version=Version(None, None))
    assert FIRST in newest.load()


def test_what_nobody_has_made_yet_is_empty_and_there_once_it_is_saved(tmp_path):
    for kind, empty, made in (
        (OptionalJSONDataset, {}, {"a": 1}),
        (OptionalParquetDataset, pd.DataFrame(), TABLE),
    ):
        file = tmp_path / kind.__name__
        found = versioned(kind, file, None).load()
        assert len(found) == len(empty) == 0
        assert type(found) is type(empty)
        versioned(kind, file, FIRST).save(made)
        assert len(versioned(kind, file, None).load()) == len(made)


POLICY = """
name: advice
version: "2"
text: Give general information only.
rules:
  - {id: no-guarantee, description: No guarantees., check: {kind: forbidden, patterns: [guaranteed]}}
"""


def test_a_policy_is_loaded_validated_and_read_only(tmp_path):
    (tmp_path / "advice-2.yml").write_text(POLICY)
    entry = {"type": "realignment.datasets.PolicyDataset", "filepath": str(tmp_path / "advice-2.yml")}
    catalog = DataCatalog.from_config({"policy": {**entry, "metadata": {"mlflow": {"artifact": "policy"}}}})
    policy = catalog.load("policy")
    assert (policy.name, policy.version, len(policy.rules)) == ("advice", "2", 1)
    assert catalog["policy"].metadata == {"mlflow": {"artifact": "policy"}}
    with pytest.raises(DatasetError, match="policy document"):
        catalog.save("policy", policy)


def test_a_missing_policy_names_those_that_are_there(tmp_path):
    (tmp_path / "advice-2.yml").write_text(POLICY)
    with pytest.raises(DatasetError, match="Policies in that folder: advice-2"):
        PolicyDataset(filepath=str(tmp_path / "advice-3.yml")).load()
