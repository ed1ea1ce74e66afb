"""What the catalog, the parameters and the registry promise, whatever the pipelines grow into.

The project is looked at in processes of its own, so that it is not configured in the process of the tests.
"""

import graphlib
import inspect
import json
import subprocess
import sys
import typing

import pytest
import yaml
from command_line import ROOT, environment

from realignment import parameters
from realignment.parameters.base import Parameters
from realignment.pipeline_registry import STAGES, register_pipelines

LAYERS = {
    "raw", "intermediate", "primary", "feature", "model_input", "models", "model_output", "reporting",
}  # fmt: skip
BROUGHT = {
    "raw_pairs", "pair_files", "policy", "old_policy", "evaluation_prompts", "labelled_answers",
    "attacks", "behaviours", "returned_verdicts", "returned_votes", "classifier_labels",
    "written_corrections",
}  # fmt: skip
UNVERSIONED = BROUGHT | {"summary", "report", "comparison_report"}
"""What people bring, and the latest result where they look for it (`run_summary`, `run_report` keep each)."""

OPTIONAL = {"audit_report", "human_verdicts"}
"""Read by a stage where a pipeline beside the stages has made it, and empty until then."""

SNAPSHOT = """
import json, sys
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project
bootstrap_project({root!r})
with KedroSession.create(project_path={root!r}, env={env!r}) as session:
    context = session.load_context()
    catalog = context.catalog
    entries = {{
        name: dict(
            layer=((getattr(catalog[name], "metadata", None) or {{}}).get("kedro-viz") or {{}}).get("layer"),
            type=type(catalog[name]).__name__,
            versioned=getattr(catalog[name], "_version", None) is not None,
            path=str(getattr(catalog[name], "_filepath", "")),
        )
        for name in catalog if name != "parameters" and not name.startswith("params:")
    }}
    known = [name for name in catalog if name == "parameters" or name.startswith("params:")]
    print("@@" + json.dumps([entries, sorted(context.params), known]))
"""


def run_python(script):
    return subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env=environment(),
        text=True,
        capture_output=True,
        check=False,
    )


def look(env):
    script = SNAPSHOT.format(root=str(ROOT), env=env)
    done = run_python(script)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.rpartition("@@")[2])


@pytest.fixture(scope="module", params=["base", "test", "labelled"])
def environment_name(request):
    return request.param


@pytest.fixture(scope="module")
def snapshot(environment_name):
    return look(environment_name)


@pytest.fixture(scope="module")
def entries(snapshot):
    return snapshot[0]


@pytest.fixture(scope="module")
def pipelines():
    return register_pipelines()


@pytest.fixture(scope="module")
def datasets(pipelines):
    names = {name for pipeline in pipelines.values() for name in pipeline.datasets()}
    return {name for name in names if name != "parameters" and not name.startswith("params:")}


def test_every_dataset_of_every_pipeline_is_in_the_catalog_and_every_entry_is_used(entries, datasets):
    assert set(entries) == datasets


def test_every_entry_has_a_layer_that_kedro_viz_shows(entries):
    assert {name for name, entry in entries.items() if entry["layer"] not in LAYERS} == set()


PIPELINES = [
    "realign", "align", "audit", "evaluate", "infer_policy", "judge_stream", "review_export", "review_import",
    "train_classifier", "win_rate_export", "win_rate_import",
]  # fmt: skip


@pytest.mark.parametrize("name", PIPELINES)
def test_layers_have_an_order_or_kedro_viz_draws_none(entries, pipelines, name):
    """kedro-viz sorts layers by the edges between them; a cycle, and it leaves all of them out."""
    before = {}
    for node in pipelines[name].nodes:
        sources, results = (
            {entries[n]["layer"] for n in names if n in entries} for names in (node.inputs, node.outputs)
        )
        for layer in results:
            before.setdefault(layer, set()).update(sources - {layer})
    order = [*graphlib.TopologicalSorter(before).static_order()]
    assert not before.get("raw")
    assert "reporting" in order
    assert not any("reporting" in sources for sources in before.values())


def test_every_entry_is_persistent_and_every_result_is_versioned(entries):
    assert {
        name for name, entry in entries.items() if not entry["path"] or "Memory" in entry["type"]
    } == set()
    assert {name for name, entry in entries.items() if not entry["versioned"]} == UNVERSIONED


def test_no_two_entries_share_a_file(entries):
    paths = [entry["path"] for name, entry in entries.items() if name not in BROUGHT]
    paths = [path for path in paths if path != "None"]
    assert len(set(paths)) == len(paths)


def test_every_parameter_is_used_and_every_one_used_is_there(snapshot, pipelines):
    _, given, known = snapshot
    used = {
        name for pipeline in pipelines.values() for name in pipeline.inputs() if name.startswith("params:")
    }
    assert {name.removeprefix("params:").split(".")[0] for name in used} == set(given)
    assert used <= set(known)


def test_every_parameter_is_typed(pipelines):
    untyped = []
    for node in {node for pipeline in pipelines.values() for node in pipeline.nodes}:
        hints = typing.get_type_hints(node.func)
        kinds = {name: argument.kind for name, argument in inspect.signature(node.func).parameters.items()}
        names = [name for name, kind in kinds.items() if kind != inspect.Parameter.VAR_KEYWORD]
        # What a node takes as **keywords has one hint for all.
        names += [name for name in kinds if name not in names] * (len(node.inputs) - len(names))
        for argument, dataset in zip(names, node.inputs, strict=True):
            ours = isinstance(hints[argument], type) and issubclass(hints[argument], Parameters)
            if dataset.startswith("params:") and not ours and hints[argument] not in (int, str):
                untyped.append((node.name, argument))
    assert untyped == []


def test_the_configuration_sets_only_fields_that_there_are():
    for file in sorted((ROOT / "conf/base").glob("parameters_*.yml")):
        for name, values in yaml.safe_load(file.read_text()).items():
            fields = set(getattr(parameters, f"{name.capitalize()}Parameters").model_fields)
            assert set(values) <= fields, f"{file.name}: {name}"


def test_realign_is_every_stage_in_order_and_each_stage_has_its_name(pipelines):
    stages = [stage.__name__.rpartition(".")[2] for stage in STAGES]
    beside = {"align", "audit", "baselines", "evaluate", "infer_policy", "judge_stream", "train_classifier"}
    beside |= {"review_export", "review_import", "win_rate_export", "win_rate_import"}
    assert set(pipelines) == {*stages, *beside, "realign", "__default__"}
    assert pipelines["realign"].nodes == pipelines["__default__"].nodes
    assert set(pipelines["realign"].nodes) == {node for name in stages for node in pipelines[name].nodes}
    for name in stages:
        assert {node.namespace for node in pipelines[name].nodes} == {name}


def test_each_stage_starts_from_what_the_ones_before_it_leave(pipelines):
    there = BROUGHT | {"parameters"} | OPTIONAL
    for stage in STAGES:
        pipeline = pipelines[stage.__name__.rpartition(".")[2]]
        assert {name for name in pipeline.inputs() if not name.startswith("params:")} <= there
        there |= pipeline.datasets()


HEAVY = ["torch", "transformers", "trl", "peft", "mlflow", "datasets", "sklearn", "lm_eval"]


def test_listing_the_pipelines_imports_nothing_heavy():
    script = (
        "import sys, click\n"
        "from kedro.framework.cli.cli import main\n"
        "sys.argv = ['kedro', 'registry', 'list']\n"
        "try:\n    main()\n"
        "finally:\n    sys.stderr.write('@@' + ' '.join(sorted(set(m.split('.')[0] for m in sys.modules))))"
    )
    done = run_python(script)
    assert "- realign" in done.stdout
    assert set(done.stderr.rpartition("@@")[2].split()) & set(HEAVY) == set()
