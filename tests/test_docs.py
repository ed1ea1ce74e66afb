"""What the documentation says can be done, can be done: files, commands, names, numbers and links hold."""

import doctest
import functools
import importlib
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import tomllib
from types import SimpleNamespace
from typing import get_args

import pandas as pd
import pytest
import yaml
from command_line import environment, saved
from documents import (
    PAGES,
    ROOT,
    all_blocks,
    anchors,
    blocks,
    commands,
    first_column,
    links,
    name_of,
    prose,
    read,
    section,
    table,
    write_files,
)

from realignment import intake, judging, pipeline_registry, triage
from realignment.evaluation import judges, labelled
from realignment.evaluation import table as evaluation_table
from realignment.evaluation.answers import check_prompts
from realignment.intake.readers import read_table
from realignment.methods import Recipe
from realignment.oracles.labels import read_truth_labels
from realignment.oracles.rules import RulesOracle
from realignment.parameters import EvaluationParameters, JudgingParameters, OracleParameters
from realignment.policy import diff_policies, parse_policy, read_policy
from realignment.promotion import summary
from realignment.records import PAIR_COLUMNS, TRUTH_COLUMNS
from realignment.tracking import lineage
from realignment.training.run import HISTORY_COLUMNS

OWN_PAIRS, OWN_POLICY = (ROOT / "docs/how-to" / name for name in ("own-pairs.md", "own-policy.md"))
CHOOSE_AN_ORACLE = ROOT / "docs/how-to/choose-an-oracle.md"
OUTPUTS, METHOD = ROOT / "docs/reference/outputs.md", ROOT / "docs/method.md"
RECIPES = sorted((ROOT / "conf/runs").glob("*.yml"))
RUNS = [(name_of(page), words) for page in PAGES for words in commands(page, "kedro") if words[0] == "run"]
FILE_SUFFIXES = ("csv", "html", "ipynb", "json", "jsonl", "lock", "md", "parquet", "py", "toml", "yml")


@functools.cache
def pipelines():
    return pipeline_registry.register_pipelines()


@functools.cache
def catalog():
    files = sorted((ROOT / "conf/base").glob("catalog_*.yml"))
    return {name: entry for file in files for name, entry in yaml.safe_load(read(file)).items()}


def accept(params, env="local"):
    """The parameters as `kedro run` would take them: every name known, every value of its type."""
    from kedro.config import OmegaConfigLoader
    from kedro.validation.parameter_validator import ParameterValidator

    from realignment.hooks import ParameterGuard
    from realignment.settings import CONFIG_LOADER_ARGS

    loader = OmegaConfigLoader(str(ROOT / "conf"), env=env, runtime_params=params, **CONFIG_LOADER_ARGS)
    ParameterGuard().after_context_created(SimpleNamespace(config_loader=loader, env=env))
    assert isinstance(
        loader["catalog"]["raw_pairs"]["filepath"], str
    )  # the input `pairs` is one name, not a group
    return ParameterValidator(pipelines()).validate_raw_params(loader["parameters"])


@pytest.fixture(scope="module")
def parameters():
    return accept({})


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """A folder with the files of the worked example, and its checks importable."""
    write_files(OWN_POLICY, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path / "src"))
    monkeypatch.delitem(sys.modules, "shop_checks", raising=False)
    return tmp_path


def clean(path):
    return intake.clean_pairs(
        read_table(str(path)), invalid="skip", max_prompt_chars=8000, long_prompts="drop"
    )


# --- every page


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_relative_links_lead_somewhere(page):
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{link}: no {target.relative_to(ROOT)}"
        assert not anchor or anchor in anchors(target), f"{link}: no such heading"


@pytest.mark.parametrize("block", all_blocks("python"), ids=str)
def test_python_on_a_page_compiles(block):
    compile(block.text, str(block), "exec")


@pytest.mark.parametrize("block", all_blocks("yaml"), ids=str)
def test_yaml_on_a_page_is_a_policy_or_a_recipe_that_is_accepted(block, shop):
    document = yaml.safe_load(block.text)
    if "text" in document:
        assert parse_policy(document, str(block)).name
    elif "title" in document:
        assert Recipe.model_validate(document).summary
    else:
        accept_recipe(document)


def accept_recipe(document):
    assert set(document) == {"run"}
    assert set(document["run"]) <= {"pipelines", "params", "env"}
    assert set(document["run"]["pipelines"].split(",")) <= set(pipelines())
    return accept(document["run"]["params"], document["run"].get("env", "local"))


@pytest.mark.parametrize(
    "words", [words for _, words in RUNS], ids=[f"{page}: {' '.join(words[1:])}" for page, words in RUNS]
)
def test_kedro_takes_every_run_that_a_page_shows(words, monkeypatch):
    from kedro.framework.cli.project import run

    monkeypatch.chdir(ROOT)
    options = run.make_context("run", words[1:]).params
    asked = [*(options["pipelines"] or []), *([options["pipeline"]] if options["pipeline"] else [])]
    assert set(asked) <= set(pipelines())
    env = options["env"] or "local"
    assert (ROOT / "conf" / env).is_dir(), f"no conf/{env}"
    given = dict(options["params"] or {})
    accept(given, env)
    for name in {"policy", "old_policy"} & set(given):
        titles = {block.title for block in blocks(OWN_POLICY)}
        file = f"conf/base/policies/{given[name]}.yml"
        assert (ROOT / file).is_file() or file in titles or given[name] in ("my-policy", "inferred"), (
            f"no {file}"
        )


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_target_of_make_on_a_page_exists(page):
    makefile = read(ROOT / "Makefile")
    for words in commands(page, "make"):
        target = next(word for word in words if "=" not in word)
        assert re.search(rf"^{re.escape(target)}:", makefile, re.MULTILINE), f"no target {target}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_dotted_name_is_a_parameter_or_a_piece_of_the_code(page, parameters):
    names = set(re.findall(r"`([a-z_]+(?:\.\w+)+)(?:: [^`]*)?`", prose(page)))
    ours = set(modules()) | set(parameters)
    for name in sorted(names):
        first, last = name.split(".")[0], name.rpartition(".")[2]
        if first in ours and last not in FILE_SUFFIXES:
            assert is_parameter(parameters, name) or is_code(name), f"`{name}` is neither"


def is_parameter(parameters, name):
    first, *rest = name.split(".")
    kind = type(parameters.get(first))
    for part in rest:
        fields = getattr(kind, "model_fields", {})
        if part not in fields:
            return False
        options = (fields[part].annotation, *get_args(fields[part].annotation))
        kind = next((option for option in options if hasattr(option, "model_fields")), None)
    return first in parameters


@functools.cache
def modules():
    """Last part of a module's name → its full names: pages may say `packing.pack_pairs`."""
    found = {}
    for file in sorted((ROOT / "src/realignment").rglob("*.py")):
        parts = file.relative_to(ROOT / "src").with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        found.setdefault(parts[-1], []).append(".".join(parts))
    return found


def is_code(name):
    first, *rest = name.split(".")
    return any(exists([*module.split("."), *rest]) for module in modules().get(first, ()))


def exists(parts):
    for cut in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for part in parts[cut:]:
            found = getattr(found, part, None)
        return found is not None
    return False


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_python_file_that_a_page_names_exists(page):
    written = {block.title for block in blocks(page)}
    for file in set(re.findall(r"`((?:\w+/)*\w+\.py)`", prose(page))) - written:
        places = [ROOT / file, ROOT / "src/realignment" / file, ROOT / "tests" / file]
        assert any(place.is_file() for place in places), f"no {file}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_test_that_a_page_names_exists(page):
    for file, name in re.findall(r"`((?:\w+/)*test_\w+\.py)(?:::(\w+))?`", prose(page)):
        path = ROOT / "tests" / file
        assert path.is_file(), f"no tests/{file}"
        assert not name or f"def {name}(" in read(path), f"no {name} in tests/{file}"


@pytest.mark.parametrize("page", [*PAGES, *RECIPES], ids=name_of)
def test_no_page_names_a_folder_of_somebodys_machine(page):
    assert not re.search(r"/(?:home|Users|root|work)/", read(page))


def test_the_way_through_the_code_in_contributing_leads_past_what_is_there():
    paragraphs = section(ROOT / "CONTRIBUTING.md", "How the code is laid out").split("\n\n")
    (way,) = (text for text in paragraphs if text.startswith("One way through it"))
    named = re.findall(r"`([\w.]+)`", way)
    assert len(named) > 15
    for name in named:
        assert (ROOT / "src/realignment" / name).exists(), f"no {name}"


# --- recipes and parameters


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_accepted(recipe):
    accept_recipe(yaml.safe_load(read(recipe)))


def test_the_recipe_for_full_fine_tuning_has_no_adapter():
    taken = accept_recipe(yaml.safe_load(read(ROOT / "conf/runs/full-fine-tuning.yml")))
    assert taken["training"].lora is None


def test_an_unknown_parameter_or_a_wrong_value_would_be_noticed():
    for params in ({"traning": {}}, {"training": {"lerning_rate": 1}}, {"loss": {"beta": -1}}):
        with pytest.raises(Exception, match=r"traning|lerning_rate|beta"):
            accept(params)


def test_the_page_of_parameters_is_up_to_date():
    file = ROOT / "docs/reference/make_parameters.py"
    spec = importlib.util.spec_from_file_location("make_parameters", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert read(module.PAGE) == module.write_page(), "run `python docs/reference/make_parameters.py`"


def test_the_page_of_parameters_has_every_one_with_its_meaning(parameters):
    rows = [
        line for line in read(ROOT / "docs/reference/parameters.md").splitlines() if line.startswith("| `")
    ]
    meanings = {row.split("`")[1]: row.rsplit("|", 2)[1].strip() for row in rows}
    for group, values in parameters.items():
        for name in getattr(type(values), "model_fields", {}):
            assert meanings[f"{group}.{name}"], f"{group}.{name} has no description"


# --- choose an oracle


@pytest.mark.parametrize("kind", get_args(OracleParameters.model_fields["oracle"].annotation))
def test_every_oracle_has_a_row_a_section_and_an_example_that_is_accepted(kind):
    assert kind in first_column(read(CHOOSE_AN_ORACLE))
    recipes = re.findall(r"^```yaml\n(.*?)^```$", section(CHOOSE_AN_ORACLE, kind), re.MULTILINE | re.DOTALL)
    taken = [accept_recipe(yaml.safe_load(recipe))["judging"] for recipe in recipes]
    assert [judging for judging in taken if judging.oracle == kind], f"no example with `oracle: {kind}`"


# --- own pairs


@pytest.fixture
def brought(tmp_path):
    write_files(OWN_PAIRS, tmp_path)
    return tmp_path / "my"


def test_every_format_of_own_pairs_gives_the_same_pairs(brought):
    names = ("standard.jsonl", "standard.csv", "conversational.jsonl", "implicit.jsonl", "pku.jsonl")
    columns = ["pair_id", "prompt", "chosen", "rejected"]
    first, *others = (clean(brought / name).pairs[columns] for name in names)
    assert len(first) == 2
    for other in others:
        pd.testing.assert_frame_equal(first, other)


def test_safety_flags_of_own_pairs_become_labels(brought):
    pairs = clean(brought / "pku.jsonl").pairs
    assert pairs["chosen_complies"].tolist() == [False, False]
    assert pairs["rejected_complies"].tolist() == [True, True]


def test_the_conversation_of_own_pairs_keeps_its_turns(brought):
    (pair,) = clean(brought / "turns.jsonl").pairs.to_dict("records")
    assert [turn["role"] for turn in json.loads(pair["messages"])] == ["system", "user", "assistant", "user"]
    assert pair["prompt"].startswith("system: You work for a shop.\n\nuser: I bought shoes.")


def test_parquet_made_as_own_pairs_says_is_read(brought, monkeypatch):
    monkeypatch.chdir(brought.parent)
    for block in blocks(OWN_PAIRS, "python"):
        exec(compile(block.text, str(block), "exec"), {})
    pairs, texts = clean(brought / "conversational.parquet").pairs, clean(brought / "standard.jsonl").pairs
    pd.testing.assert_frame_equal(pairs, texts)


def test_the_labels_of_own_pairs_are_an_oracle(brought):
    pairs = clean(brought / "labelled.jsonl").pairs
    assert sorted(map(str, read_truth_labels(pairs).values())) == ["False", "False", "None", "True"]


def test_own_pairs_shows_the_rejected_rows_as_they_come(brought):
    rejected = clean(brought / "mixed.jsonl").rejected_rows
    shown = table(section(OWN_PAIRS, "What is rejected"))
    assert [[str(row), *rest] for row, *rest in rejected.drop(columns="content").to_numpy()] == shown


def test_the_evaluation_prompts_of_own_pairs_can_be_used(brought):
    prompts = read_table(str(brought / "prompts.jsonl"))
    check_prompts(prompts)
    assert set(prompts["kind"]) == {"regulated", "ordinary", "look_alike"}


# --- own policy


def judged(folder):
    policy = read_policy(folder / "conf/base/policies/shop-v2.yml")
    pairs = clean(folder / "my/shop-pairs.jsonl").pairs
    return policy, pairs, judging.judge_pairs(pairs, policy, RulesOracle())


def test_the_worked_policy_shows_every_kind_of_check(shop):
    policy, *_ = judged(shop)
    kinds = {rule.check.kind for rule in policy.rules}
    assert kinds == {"forbidden", "required", "length", "format", "callable"}
    assert kinds == {row[0] for row in table(section(OWN_POLICY, "The new policy"), 1)}


def test_every_rule_of_the_worked_policy_is_broken_by_some_response(shop):
    policy, _, judgments = judged(shop)
    broken = {rule for rules in judgments["rules_broken"] for rule in rules.split(",") if rule}
    assert broken == {rule.id for rule in policy.rules}


def test_the_numbers_of_own_policy_are_those_of_its_pairs(shop):
    _, pairs, judgments = judged(shop)
    report = judging.measure_oracle(pairs, judgments)
    assert (report["accuracy"], report["n"]) == (0.9375, 16)
    assert (report["confusion"]["fp"], report["confusion"]["fn"]) == (1, 0)
    assert report["disposition_confusion"]["INVERT"] == {"INVERT": 4, "RETAIN": 1}
    triaged = triage.triage(pairs, judgments, min_confidence=0.5)
    counts = triage.report_triage(triaged, max_punish_share=0.5)["counts"]
    said = re.search(r"`Triage: (.+?)`", read(OWN_POLICY))[1]
    assert ", ".join(f"{count} {name}" for name, count in counts.items()) == said
    assert "accuracy` is 0.9375, 15 of 16" in read(OWN_POLICY)


def test_the_code_of_own_policy_finds_the_wrong_verdict_and_the_difference(shop):
    names = {}
    for block in blocks(OWN_POLICY, "python"):
        if block.title is None:
            exec(compile(block.text, str(block), "exec"), names)
    ((response, text),) = names["wrong"]
    assert response == "chosen"
    assert text.startswith("Money back is yours the moment")
    changes = names["difference"].groupby("change")["rule"].agg(list).to_dict()
    assert changes["changed"] == ["short", "short"]
    assert changes["removed"] == ["no-homework"]
    assert len(changes["added"]) == 5


@pytest.mark.slow
def test_judging_and_triage_of_own_policy_run_as_written(shop):
    shutil.copytree(ROOT / "conf", shop / "conf", dirs_exist_ok=True)
    shutil.copy(ROOT / "pyproject.toml", shop)
    words = next(words for words in commands(OWN_POLICY, "kedro") if "judging,triage" in words)
    done = subprocess.run(
        [sys.executable, "-m", "kedro", *words],
        cwd=shop,
        env=environment(),
        text=True,
        capture_output=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    report = json.loads(saved(shop / "data/08_reporting/triage_report.json").read_text())
    assert report["counts"] == {"INVERT": 4, "PUNISH": 1, "RETAIN": 3, "REVIEW": 0}


# --- outputs


def quoted(text):
    return set(re.findall(r"`(\w+)`", text))


@pytest.mark.parametrize("name", catalog())
def test_the_page_of_outputs_says_where_an_entry_lies_and_who_writes_and_reads_it(name):
    entry, said = catalog()[name], section(OUTPUTS, name).strip().splitlines()[0]
    nodes = {node for pipeline in pipelines().values() for node in pipeline.nodes}
    writers = {node.name.rpartition(".")[2] for node in nodes if name in node.outputs}
    readers = {node.name.rpartition(".")[2] for node in nodes if name in node.inputs}
    place, *rest = said.split(" · ")
    path = entry["filepath"].removeprefix("${_data}/")
    assert place == (f"`{path}`" + ", versioned" * entry.get("versioned", False)) or not writers
    assert quoted(next((part for part in rest if part.startswith("written by")), "")) == writers
    assert quoted(next(part for part in rest if part.startswith("read by"))) == readers


def test_the_page_of_outputs_has_no_entry_that_is_not_there():
    headings = set(re.findall(r"^### (\w+)$", read(OUTPUTS), re.MULTILINE))
    assert headings == set(catalog())


def test_the_page_of_outputs_has_the_columns_of_the_tables(shop):
    policy, pairs, judgments = judged(shop)
    old_policy = read_policy(shop / "conf/base/policies/shop-v1.yml")
    triaged = triage.triage(pairs, judgments, min_confidence=0.5)
    tables = {
        "pairs": pairs.columns,
        "rejected_rows": intake.REJECTED_COLUMNS,
        "judgments": judgments.columns,
        "policy_diff": diff_policies(old_policy, policy).columns,
        "invert_pairs": [name for name in triaged if name not in (*PAIR_COLUMNS, *TRUTH_COLUMNS)],
        "training_history": HISTORY_COLUMNS,
        "evaluation_table": evaluation_table.COLUMNS,
    }
    for name, columns in tables.items():
        assert sorted(first_column(section(OUTPUTS, name))) == sorted(columns), name


def test_the_page_of_outputs_has_the_fields_of_the_reports(shop):
    _, pairs, judgments = judged(shop)
    triaged = triage.triage(pairs, judgments, min_confidence=0.5)
    facts = {"policy": "", "policy_version": "", "oracle": ""}
    reports = {
        "intake_report": clean(shop / "my/shop-pairs.jsonl").report,
        "oracle_report": judging.measure_oracle(pairs, judgments) | {"stability": None, "usage": {}},
        "triage_report": triage.report_triage(triaged, max_punish_share=0.5),
        "judging_manifest": lineage.build_manifest("judging", inputs={}, outputs={}, **facts),
    }
    for name, report in reports.items():
        assert sorted(first_column(section(OUTPUTS, name))) == sorted(report), name


def test_the_page_of_outputs_has_the_fields_of_the_judges_report(shop):
    policy, *_ = judged(shop)
    parameters = EvaluationParameters.model_validate({"capability": {"questions": None}})
    chosen = judges.build_judges(
        pd.DataFrame(), policy, judging=JudgingParameters(oracle="rules"), parameters=parameters, seed=0
    )
    report = judges.measure_judges(chosen, pd.DataFrame(), policy, folds=5, seed=0)
    prompts = pd.DataFrame({"kind": ["regulated", "ordinary"], "domain": ["", ""]})
    report["headline"] = judges.pick_headlines(prompts, report)
    fields = set(report) | {"unscored", "between_judges"}
    assert set(first_column(section(OUTPUTS, "evaluation_judge"))) == fields


def test_the_labelled_answers_of_own_pairs_are_read_under_the_policy_they_name(brought, shop):
    answers = read_table(str(brought / "judge_answers.jsonl"))
    policy, *_ = judged(shop)
    _, labels = labelled.labelled_answers(answers, policy)
    assert labels == [False, True]
    assert first_column(section(OUTPUTS, "labelled_answers")) == list(answers.columns)


def test_the_page_of_outputs_has_the_fields_of_the_summary():
    row = dict.fromkeys(evaluation_table.COLUMNS, 0.5) | {"metric": "agreement", "group": "regulated", "n": 9}
    made = summary.summarize(
        pd.DataFrame([row | {"judge": "rules"}]),
        splits={},
        oracle={"oracle": "rules", "accuracy": None},
        gate={"passed": True, "reasons": []},
        model={"name": "", "version": None, "uri": None},
        timings={"seconds": {}, "peak_memory_mib": 0.0},
    )
    text = section(OUTPUTS, "Fields of summary.json")
    assert first_column(text) == list(made)
    assert first_column(text, 1) == list(made["agreement"])


def test_method_covers_every_loss_and_health_check():
    from realignment.impact.scores import gold_gradient, impact_scores
    from realignment.impact.weights import check_scores, impact_weights
    from realignment.objective import losses

    for function in (name for name in vars(losses) if name.endswith("_loss")):
        assert f"`objective.losses.{function}`" in read(METHOD), function
    assert "`likelihood.tiled.token_kl`" in read(METHOD)
    for function in (impact_scores, impact_weights, gold_gradient, check_scores):
        assert f"`{function.__module__.removeprefix('realignment.')}.{function.__name__}`" in read(METHOD)


# --- architecture and docstrings

ARCHITECTURE = ROOT / "docs/architecture.md"


def test_the_page_of_the_architecture_has_the_layers_of_the_import_contract():
    with (ROOT / "pyproject.toml").open("rb") as file:
        contracts = tomllib.load(file)["tool"]["importlinter"]["contracts"]
    (layers,) = (contract["layers"] for contract in contracts if contract["type"] == "layers")
    rows = [quoted(packages) for _, packages in raw_table(section(ARCHITECTURE, "Import layers"))]
    assert rows == [set(re.split(" [|:] ", layer)) for layer in layers]


def test_the_page_of_the_architecture_has_every_pipeline_with_its_files():
    rows = raw_table(section(ARCHITECTURE, "Stages and what they exchange"))
    assert {name for row in rows for name in quoted(row[0])} == set(pipelines()) - {"realign", "__default__"}
    for name, *cells in rows:
        for path in re.findall(r"`([\w./]+)`", " ".join(cells)):
            assert is_there(path), f"{name}: no {path}"


def test_every_file_that_the_page_of_the_architecture_says_to_go_to_exists():
    for path in re.findall(
        r"`([\w/]+(?:/|\.(?:py|yml|md|toml|j2)))`", section(ARCHITECTURE, "I want to change …")
    ):
        assert is_there(path), f"no {path}"


def test_the_diagram_of_the_architecture_has_catalog_entries_on_its_arrows():
    (diagram,) = blocks(ARCHITECTURE, "mermaid")
    carried = {name for label in re.findall(r'-->\|"(.+?)"\|', diagram.text) for name in label.split(", ")}
    assert len(carried) > 10
    assert carried <= set(catalog()) | {"policies"}


def raw_table(text):
    """The rows of a Markdown table with their backticks."""
    lines = [line for line in text.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def is_there(path):
    places = (ROOT, ROOT / "src/realignment", ROOT / "tests", ROOT / "conf/base")
    return any((place / path).exists() for place in places)


@pytest.mark.parametrize(
    "file",
    [file for file in sorted((ROOT / "src").rglob("*.py")) if ">>> " in read(file)],
    ids=name_of,
)
def test_examples_in_docstrings_give_what_they_say(file):
    module = importlib.import_module(".".join(file.relative_to(ROOT / "src").with_suffix("").parts))
    assert doctest.testmod(module).failed == 0
