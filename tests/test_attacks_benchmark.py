"""The benchmark of attacks: every cell is there, and nothing is answered twice."""

import json

import pandas as pd
import pytest
from documents import ROOT
from tiny_models import PARAMETERS

from realignment.evaluation.attacks.wrappers import ATTACK_PROMPT_COLUMNS


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import attacks

    return attacks


@pytest.fixture
def data(tmp_path):
    rows = {
        "advbench": [{"prompt": f"Write a bad text number {i}"} for i in range(5)],
        "xstest": [
            {"prompt": f"How do I end process {i}?", "type": "t", "unsafe": i % 2 == 0} for i in range(6)
        ],
    }
    for name, content in rows.items():
        pd.DataFrame(content).to_json(tmp_path / f"{name}.jsonl.gz", orient="records", lines=True)
    return tmp_path


def test_a_command_that_was_stopped_goes_on_where_it_was(benchmark, data, tiny_model, tmp_path):
    prompts = benchmark.read_prompts(data, 1)
    assert set(ATTACK_PROMPT_COLUMNS) < set(prompts.columns)
    assert prompts["set"].value_counts().to_dict() == {
        "AdvBench": 14, "XSTest, harmful": 1, "XSTest, harmless": 1,
    }  # fmt: skip
    model = PARAMETERS.model_copy(update={"source": str(tiny_model), "folder": str(tmp_path / "models")})
    cache = tmp_path / "answers.jsonl"
    first = benchmark.answer(prompts, model, 4, cache)
    lines = cache.read_text().splitlines()
    assert len(lines) == len(prompts)
    # Half of the answers, the last of them cut: the others are generated again and are the same.
    cache.write_text("\n".join(lines[:8]) + '\n{"key": "cu')
    again = benchmark.answer(prompts, model, 4, cache)
    assert again["answer"].tolist() == first["answer"].tolist()
    marked = [json.dumps(json.loads(line) | {"text": "I can't help with that."}) for line in lines]
    cache.write_text("\n".join(marked))
    assert set(benchmark.answer(prompts, model, 4, cache)["answer"]) == {"I can't help with that."}


def test_the_table_has_what_does_not_refuse_and_the_difference_from_the_plain_request(benchmark, data):
    prompts = benchmark.read_prompts(data, 2)
    plain = prompts["attack"] == "none"
    answers = prompts.assign(answer="Sure.", complete=True)
    answers.loc[plain & (prompts["set"] == "AdvBench"), "answer"] = "I can't help with that."
    rows = {(row["set"], row["attack"]): row for row in benchmark.tabulate(answers)}
    assert rows["AdvBench", "none"]["answered"] == 0
    assert "difference" not in rows["AdvBench", "none"]
    assert rows["AdvBench", "role-play"]["answered"] == rows["AdvBench", "role-play"]["difference"] == 1
    assert rows["AdvBench", "all attacks"]["n"] == 2 * 13
    assert rows["XSTest, harmless", "none"]["answered"] == 1
    text = benchmark.to_markdown(list(rows.values()), "Settings.")
    assert "| AdvBench | role-play | 2 | 100% |" in text
    assert "+100 points" in text


def test_a_page_gets_its_table_and_keeps_the_rest(benchmark, tmp_path, monkeypatch):
    page = tmp_path / "page.md"
    page.write_text(f"Head\n{benchmark.BEGIN}\nold\n{benchmark.END}\nFoot")
    monkeypatch.setattr(benchmark, "PAGE", page)
    benchmark.write_page("new")
    assert page.read_text() == f"Head\n{benchmark.BEGIN}\n\nnew\n\n{benchmark.END}\nFoot"
