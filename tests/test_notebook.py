"""The notebook runs as it is committed, and the weights that it ends with are what it says."""

import json
import re
from pathlib import Path

import nbclient
import nbformat
import pytest

NOTEBOOK = Path(__file__).parents[1] / "notebooks/from-policy-to-weights.ipynb"

PROBE = """
import json

print(json.dumps({
    "kinds": sorted(triaged["disposition"]),
    "gold": sorted(parts.gold["pair_id"]),
    "scored": sorted(table["pair_id"]),
    "scores": list(table["score"]),
    "weights": list(table["weight"]),
    "best": table.groupby("disposition")["score"].max().to_dict(),
    "means": table.groupby("disposition")["weight"].mean().to_dict(),
    "norm": impact.gradient_norm(direction),
    "norm_of_A": impact.gradient_norm({n: g for n, g in direction.items() if "lora_A" in n}),
}))
"""


def read_notebook():
    return nbformat.read(NOTEBOOK, as_version=4)


def execute(monkeypatch):
    """What the probe printed after all cells; skips where there is no base model to be had."""
    monkeypatch.setenv("DO_NOT_TRACK", "1")
    notebook = read_notebook()
    notebook.cells.append(nbformat.v4.new_code_cell(PROBE))
    where = {"metadata": {"path": str(NOTEBOOK.parent)}}
    client = nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3", resources=where)
    try:
        client.execute()
    except nbclient.exceptions.CellExecutionError as error:
        if error.ename == "ModelError" and "could not download" in error.evalue:
            pytest.skip(f"the base model is not here and cannot be fetched: {error.evalue[:200]}")
        raise
    texts = [output["text"] for output in notebook.cells[-1].outputs if output.get("name") == "stdout"]
    return json.loads("".join(texts))


def test_the_notebook_is_committed_without_outputs():
    for cell in read_notebook().cells:
        assert not cell.get("outputs"), cell.source[:60]
        assert cell.get("execution_count") is None, cell.source[:60]


def test_the_notebook_is_valid_and_names_no_machine():
    nbformat.validate(read_notebook())
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert not re.search(r"/(?:home|Users|root|work)/", text)


@pytest.mark.slow
def test_the_notebook_ends_with_weights_of_mean_one_per_disposition(monkeypatch):
    seen = execute(monkeypatch)
    assert seen["kinds"] == ["INVERT"] * 4 + ["PUNISH"] * 3 + ["RETAIN"]
    assert len(seen["gold"]) == 3
    assert len(seen["scored"]) == 5
    assert not set(seen["gold"]) & set(seen["scored"])
    for disposition, mean in seen["means"].items():  # zero where no score of the disposition is positive
        assert mean == pytest.approx(float(seen["best"][disposition] > 0), abs=1e-5)
    for score, weight in zip(seen["scores"], seen["weights"], strict=True):
        assert (weight > 0) == (score > 0)
    assert seen["norm"] > 0
    assert seen["norm_of_A"] == 0  # a fresh LoRA has B = 0
