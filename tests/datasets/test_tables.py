import pandas as pd
import pytest
from kedro.framework.context.context import _convert_paths_to_absolute_posix
from kedro.io import DatasetError

from realignment.datasets.tables import DocumentDataset, TableDataset


def test_it_loads_the_rows_with_their_lines(tmp_path):
    (tmp_path / "a.jsonl").write_text('\n{"prompt": "hi"}\n')
    table = TableDataset(filepath=str(tmp_path / "a.jsonl"), metadata={"layer": "raw"}).load()
    assert table.reset_index().to_dict("records") == [{"row": 2, "prompt": "hi"}]


def test_none_means_no_table_also_after_kedro_made_it_absolute(tmp_path):
    config = {"pairs": {"filepath": "none"}, "prompts": {"filepath": "hub://org/name?split=train"}}
    config = _convert_paths_to_absolute_posix(tmp_path, config)
    assert config["prompts"]["filepath"] == "hub://org/name?split=train"
    for filepath in (config["pairs"]["filepath"], "none", None):
        dataset = TableDataset(filepath=filepath)
        assert dataset.load().empty
        assert not dataset.exists()


def test_through_the_catalog_the_error_stays_readable_and_saving_is_refused(tmp_path):
    (tmp_path / "a.jsonl").write_text("oops")
    dataset = TableDataset(filepath=str(tmp_path / "a.jsonl"))
    assert dataset.exists()
    with pytest.raises(DatasetError, match=r"a\.jsonl, line 1: broken JSON"):
        dataset.load()
    with pytest.raises(DatasetError, match="read-only"):
        dataset.save(pd.DataFrame())


def test_a_document_is_loaded_as_yaml_and_what_is_none_is_named(tmp_path):
    (tmp_path / "a.yml").write_text("- name: none\n  template: '{request}'\n")
    assert DocumentDataset(filepath=str(tmp_path / "a.yml")).load() == [
        {"name": "none", "template": "{request}"}
    ]
    (tmp_path / "b.yml").write_text("- name: [")
    for name in ("b.yml", "c.yml"):
        with pytest.raises(DatasetError, match=rf"{name} is not readable as UTF-8 YAML"):
            DocumentDataset(filepath=str(tmp_path / name)).load()
