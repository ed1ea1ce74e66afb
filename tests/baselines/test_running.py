"""Cells are run once, kept whole, and fail alone."""

import json
from dataclasses import replace

import pandas as pd
import pytest
from made_up_pairs import make_pairs
from tiny_models import PARAMETERS, save_model

from realignment.baselines import cells, running
from realignment.baselines.cells import Laboratory, Settings
from realignment.baselines.running import CellError, list_cells, run_cells, tabulate_cells, tabulate_items
from realignment.baselines.sets import build_set
from realignment.oracles.rules import RulesOracle
from realignment.parameters import BaselinesParameters, CapabilityParameters, EvaluationParameters
from realignment.policy import Policy

POLICY = Policy.model_validate(
    {
        "name": "short",
        "version": "1",
        "text": "Be short.",
        "rules": [{"id": "short", "description": "Short.", "check": {"kind": "length", "max_words": 2}}],
    }
)
RECIPES = {
    "reference": "{title: R, source: S, summary: S, trains: false}",
    "uniform": "{title: U, source: S, summary: S, impact: {normalize: uniform}}",
    "weighted": "{title: W, source: S, summary: S}",
    "opposed": "{title: O, source: S, summary: S, training: {max_tokens: 3}}",
}
SECTIONS = {
    "loss": {"beta": 0.3, "kl_weight": 0.5, "anchor_weight": 0.1},
    "impact": {"token_budget": 64, "max_negative_share": 1.0},
    "gold": {"size": 3},
    "training": {
        "lora": {"rank": 2, "alpha": 4, "target_modules": "all-linear"}, "max_kl": 1e6,
        "learning_rate": 1e-2, "batch_size": 4, "max_response_tokens": 12, "epochs": 1,
    },
}  # fmt: skip
EVALUATION = EvaluationParameters(
    max_new_tokens=4, batch_size=4, token_budget=256, capability=CapabilityParameters(questions=None)
)


def triaged():
    kinds = ["INVERT", "PUNISH", "RETAIN"]
    rows = [
        {"disposition": kinds[i % 3], "rules_broken": "", "rejected_verdict": i % 3 == 0, "chosen": f"No {i}"}
        | {"rejected": f"Yes {i}", "correction": f"Well {i}" if i % 3 == 1 else None}
        for i in range(48)
    ]
    return make_pairs(*rows).assign(prompt=[f"Q{i}?" for i in range(48)])


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(save_model(tmp_path_factory.mktemp("model"), seed=3, scale=0.3))


@pytest.fixture
def laboratory(model, tmp_path):
    def build(methods=("uniform", "weighted"), **options):
        folder = tmp_path / "methods"
        folder.mkdir(exist_ok=True)
        for name, text in RECIPES.items():
            (folder / f"{name}.yml").write_text(text)
        options = {"seeds": [1, 2], "isolate": False, "capability": False} | options
        parameters = BaselinesParameters(
            methods=methods,
            methods_folder=str(folder),
            cells_folder=str(tmp_path / "cells"),
            set={"name": "made-up", "prompts": "held_out", "training_pairs": 24, "held_out_share": 0.5},
            **options,
        )
        comparison = build_set(triaged(), pd.DataFrame(), parameters.set, EVALUATION)
        return Laboratory(
            comparison,
            POLICY,
            [RulesOracle()],
            model,
            PARAMETERS,
            parameters,
            EVALUATION,
            str(tmp_path / "work"),
        )

    return build


def run(laboratory, folder):
    planned = [(cell, Settings.of(cell, SECTIONS, {})) for cell in list_cells(laboratory.parameters)]
    return run_cells(laboratory, planned, folder)


def test_all_methods_come_with_the_first_seed_before_any_with_the_second(laboratory):
    variants = {"a": {"loss": {"beta": 0.1}}, "b": {"loss": {"beta": 0.2}}}
    cells = list_cells(laboratory(("reference", "uniform"), variants=variants).parameters)
    assert [(c.method, c.variant, c.seed) for c in cells] == [
        ("reference", "a", 1), ("uniform", "a", 1), ("uniform", "b", 1), ("uniform", "a", 2),
        ("uniform", "b", 2),
    ]  # fmt: skip
    betas = [Settings.of(cell, SECTIONS, {}).loss.beta for cell in cells[1:3]]
    assert betas == [0.1, 0.2]


def test_a_grid_is_every_combination_of_its_values(laboratory):
    grid = {"loss.kl_weight": [0.1, 1.0], "loss.beta": [0.1], "gold.size": [3, 6]}
    planned = list_cells(laboratory(("uniform",), seeds=[1], grid=grid).parameters)
    assert [cell.variant for cell in planned] == [
        "kl_weight=0.1, beta=0.1, size=3", "kl_weight=0.1, beta=0.1, size=6",
        "kl_weight=1.0, beta=0.1, size=3", "kl_weight=1.0, beta=0.1, size=6",
    ]  # fmt: skip
    settings = Settings.of(planned[1], SECTIONS, {})
    assert (settings.loss.kl_weight, settings.loss.beta, settings.gold.size) == (0.1, 0.1, 6)


def test_what_was_tuned_is_for_its_method_alone_and_under_a_variants(laboratory):
    tuned = {"uniform": {"training": {"learning_rate": 0.5}, "loss": {"beta": 0.7}}}
    variants = {"a": {"loss": {"beta": 0.1}}}
    planned = list_cells(laboratory(seeds=[1], tuned=tuned, variants=variants).parameters)
    first, second = (Settings.of(cell, SECTIONS, {}) for cell in planned)
    assert (first.training.learning_rate, first.loss.beta) == (0.5, 0.1)
    assert second.training.learning_rate == SECTIONS["training"]["learning_rate"]


def test_overrides_are_for_all_methods_and_count_less_than_the_methods_own(laboratory):
    (cell,) = list_cells(laboratory(("uniform",), seeds=[1]).parameters)
    settings = Settings.of(cell, SECTIONS, {"training": {"epochs": 3}, "impact": {"normalize": "l1"}})
    assert settings.training.epochs == 3
    assert settings.impact.normalize == "uniform"


def test_every_cell_is_measured_item_by_item(laboratory, tmp_path):
    records = run(laboratory(("reference", "weighted"), seeds=[1]), tmp_path / "cells")
    items, table = tabulate_items(records), tabulate_cells(records)
    assert table["status"].tolist() == ["done", "done"]
    assert table["steps"].fillna(0).astype(int).tolist()[0] == 0
    assert table["steps"].astype("Int64").tolist()[1] == -(-(24 - 3) // 4)
    assert (table["seconds"] > 0).all()
    reference = items[items["method"] == "reference"]
    assert (reference.loc[reference["metric"].str.startswith("logratio"), "value"] == 0).all()
    assert (reference.loc[reference["metric"] == "kl_drift", "value"].abs() < 1e-4).all()
    weighted = items[items["method"] == "weighted"]
    assert (weighted.loc[weighted["metric"].str.startswith("logratio"), "value"] != 0).any()
    assert set(items["metric"]) >= {
        "preference_accuracy", "margin", "logratio_preferred", "logratio_dispreferred", "logratio_retained",
        "kl_drift", "agreement", "answer_words", "answer_cut", "entropy", "repetition",
    }  # fmt: skip
    agreement = items[items["metric"] == "agreement"]
    assert set(agreement["judge"]) == {"rules"}
    assert agreement.groupby("method").size().nunique() == 1
    assert not items["cluster"].str.contains("Q").any()  # no text of the data is kept


def test_a_finished_cell_is_not_run_again_and_a_new_seed_runs_alone(laboratory, tmp_path, monkeypatch):
    folder = tmp_path / "cells"
    first = run(laboratory(("uniform",), seeds=[1]), folder)
    called = []

    def counted(laboratory, cell, settings):
        called.append(cell.seed)
        return cells.run_cell(laboratory, cell, settings)

    monkeypatch.setattr(running, "run_cell", counted)
    second = run(laboratory(("uniform",), seeds=[1, 2]), folder)
    assert called == [2]
    assert second[0] == json.loads(json.dumps(first[0]))
    assert len(list(folder.glob("*.json.gz"))) == 2
    assert not list(folder.glob("*.partial"))


def test_the_same_cell_twice_has_the_same_items(laboratory, tmp_path):
    a, b = (run(laboratory(("weighted",), seeds=[1]), tmp_path / name)[0] for name in "ab")
    assert a["items"] == b["items"]
    assert a["digest"] == b["digest"]


def test_another_parameter_is_another_cell_and_other_code_makes_it_run_anew(
    laboratory, tmp_path, monkeypatch
):
    setting = laboratory(("uniform",), seeds=[1])
    (cell,) = list_cells(setting.parameters)
    settings = Settings.of(cell, SECTIONS, {})
    digest = running.digest_cell(setting, cell, settings)
    changed = Settings.of(replace(cell, changes={"loss": {"beta": 0.2}}), SECTIONS, {})
    assert running.digest_cell(setting, cell, changed) != digest
    run(setting, tmp_path / "cells")
    called = []
    monkeypatch.setattr(running, "run_cell", lambda *a: called.append(1) or cells.run_cell(*a))
    monkeypatch.setattr(running, "digest_code", lambda: "other")
    kept = laboratory(("uniform",), seeds=[1], keep_cells_of_other_code=True)
    run(kept, tmp_path / "cells")
    assert not called
    run(setting, tmp_path / "cells")
    assert called == [1]


def test_where_the_project_lies_is_no_part_of_a_cells_digest(laboratory):
    digests = set()
    for folder in ("/one/place", "/another"):
        questions = {"path": f"{folder}/questions.jsonl", "metric": "acc", "shots": 2}
        evaluation = EVALUATION.model_copy(update={"capability": CapabilityParameters(questions=questions)})
        setting = replace(laboratory(("uniform",), seeds=[1], capability=True), evaluation=evaluation)
        (cell,) = list_cells(setting.parameters)
        digests.add(running.digest_cell(setting, cell, Settings.of(cell, SECTIONS, {})))
    assert len(digests) == 1


def test_a_method_that_cannot_be_trained_is_a_failed_cell_and_the_others_go_on(laboratory, tmp_path):
    records = run(laboratory(("opposed", "uniform"), seeds=[1]), tmp_path / "cells")
    assert [record["status"] for record in records] == ["failed", "done"]
    assert records[0]["reason"].startswith("PromptTooLongError: ")
    assert set(tabulate_items(records)["method"]) == {"uniform"}


def test_a_damaged_cell_is_named_and_not_taken(laboratory, tmp_path):
    setting, folder = laboratory(("uniform",), seeds=[1]), tmp_path / "cells"
    run(setting, folder)
    (file,) = folder.glob("*.json.gz")
    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(CellError, match=r"cannot be read.*Remove it"):
        run(setting, folder)


def die(*_):
    import os
    import signal

    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_a_cell_whose_process_is_killed_fails_alone(laboratory, tmp_path, monkeypatch):
    """As by the kernel, out of memory: no exception can be caught there."""
    setting = laboratory(("uniform",), seeds=[1], isolate=True)
    monkeypatch.setattr(running, "run_cell", die)
    (record,) = run(setting, tmp_path / "cells")
    assert record["status"] == "failed"
    assert "its process died" in record["reason"]
