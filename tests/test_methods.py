"""Methods are recipes: what each makes of every kind of pair, and which of two values counts."""

from pathlib import Path

import pytest
import yaml
from command_line import ROOT

from realignment import methods
from realignment.baselines.cells import Cell, Settings
from realignment.methods import MethodError, Recipe, apply_recipe, list_methods, load_recipe
from realignment.objective.examples import PairKind
from realignment.settings import CONFIG_LOADER_ARGS, MethodConfigLoader
from realignment.training.run import build_objective, build_plans

FOLDER = ROOT / "conf/base/methods"
SECTIONS = ("loss", "impact", "gold", "training")


def load_parameters(**runtime):
    loader = MethodConfigLoader(str(ROOT / "conf"), runtime_params=runtime, **CONFIG_LOADER_ARGS)
    return loader["parameters"]


@pytest.fixture(scope="module")
def configured():
    return load_parameters()


def settings_of(name, configured, folder=FOLDER, **changes):
    cell = Cell("set", name, "", 0, load_recipe(name, folder), changes)
    return Settings.of(cell, configured, {})


def plans_of(name, configured, folder=FOLDER):
    """What becomes of each kind: treatment and columns, in short."""
    plans = build_plans(settings_of(name, configured, folder).loss)
    return {
        kind.value: plan and f"{plan.treatment.name.lower()} {' '.join(plan.columns)}"
        for kind, plan in plans.items()
    }


@pytest.mark.parametrize("name", list_methods(FOLDER))
def test_every_recipe_gives_parameters_that_are_accepted_and_names_its_source(name, configured):
    recipe = load_recipe(name, FOLDER)
    assert set(plans_of(name, configured)) == {kind.value for kind in PairKind}
    assert recipe.title
    assert recipe.source.startswith(("arXiv", "ablation", "the model", "supervised", "in-context"))


def test_the_default_method_is_the_configuration(configured):
    settings = settings_of(methods.DEFAULT, configured)
    assert settings.loss.model_dump(exclude={"plans"}).items() >= configured["loss"].items()
    assert configured["method"] == methods.DEFAULT


EXPECTED = {
    "trace": (
        "prefer rejected chosen", "correct correction chosen rejected", "suppress chosen rejected",
        "affirm chosen rejected", "keep chosen",
    ),
    "trace-paper": (
        "prefer rejected chosen", "suppress chosen rejected", "suppress chosen rejected", "keep chosen",
        "keep chosen",
    ),
    "sft": ("imitate rejected", "imitate correction", None, "keep chosen", "keep chosen"),
    "oracle-dpo": (
        "prefer rejected chosen", None, None, "affirm chosen rejected", "affirm chosen rejected",
    ),
    "dpo-gold": (
        "prefer rejected chosen", "prefer correction chosen", None, "affirm chosen rejected",
        "affirm chosen rejected",
    ),
    "npo-retain": (
        "suppress chosen", "suppress chosen rejected", "suppress chosen rejected", "keep chosen",
        "keep chosen",
    ),
    "u2a": ("suppress chosen", "suppress chosen rejected", "suppress chosen rejected", None, None),
    "no-triage": (
        "prefer rejected chosen", "prefer rejected chosen", "prefer rejected chosen",
        "affirm chosen rejected", "keep chosen",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", EXPECTED)
def test_what_becomes_of_each_kind_of_pair(name, configured):
    assert plans_of(name, configured) == dict(zip(map(str, PairKind), EXPECTED[name], strict=True))


def test_the_method_of_the_paper_has_its_hyper_parameters(configured):
    settings = settings_of("trace-paper", configured)
    lora, training = settings.training.lora, settings.training
    assert (lora.rank, lora.alpha, lora.target_modules) == (32, 16, ("q_proj", "v_proj"))
    assert lora.dropout == 0.1
    assert (training.learning_rate, training.epochs, training.trainer) == (1e-4, 1, {"warmup_steps": 100})
    assert training.batch_size * training.accumulation_steps == 12
    assert training.max_tokens == 256
    loss = settings.loss
    assert (loss.beta, loss.kl_weight, loss.anchor_weight) == (0.3, 0.1, 0)
    assert (loss.punish_weight, loss.retain_weight, loss.reduction) == (1, 0, "sum")
    assert (loss.punish, loss.use_corrections, settings.impact.normalize) == ("npo_paper", False, "l1")
    assert (settings.gold.retained, settings.gold.punished) == ("all", "random_compliant")


def test_fine_tuning_has_no_preference_term_no_kl_and_one_weight_for_all_pairs(configured):
    objective = build_objective(settings_of("sft", configured).loss)
    assert (objective.preference_weight, objective.anchor_weight, objective.kl_weight) == (0, 1, 0)
    assert (objective.retain_weight, objective.reduction) == (1, "mean")


def test_the_command_line_counts_more_than_the_recipe_and_the_recipe_more_than_the_files():
    assert load_parameters()["loss"]["anchor_weight"] == 1.0
    assert load_parameters(method="no-anchor")["loss"]["anchor_weight"] == 0.0
    given = load_parameters(method="no-anchor", loss={"anchor_weight": 0.5, "beta": 0.2})
    assert (given["loss"]["anchor_weight"], given["loss"]["beta"]) == (0.5, 0.2)
    assert given["loss"]["retain_weight"] == load_parameters()["loss"]["retain_weight"]


def test_a_plan_of_a_variant_replaces_the_recipes_and_is_not_added_to_it(configured):
    other = {"plans": {"invert": {"imitate": ["rejected"]}}}
    settings = settings_of("oracle-dpo", configured, loss=other)
    assert settings.loss.plans["invert"] == {"imitate": ("rejected",)}
    assert settings.loss.plans["punish"] is None


def test_a_method_that_there_is_not_is_refused_with_those_that_there_are():
    with pytest.raises(MethodError, match=r"no method `traces`.*Known: .*trace, trace-paper"):
        load_parameters(method="traces")


def test_a_method_that_trains_nothing_is_compared_and_not_run():
    with pytest.raises(MethodError, match=r"`reference` trains nothing.*baselines\.methods"):
        load_parameters(method="reference")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("title: T", "source\n.*Field required"),
        ("title: T\nsource: S\nsummary: S\nlosses: {}", "losses"),
        ("title: [", "is no recipe of a method"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused(text, message, tmp_path):
    (tmp_path / "mine.yml").write_text(text)
    with pytest.raises(MethodError, match=message):
        load_recipe("mine", tmp_path)


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ({"prefer": ["chosen"]}, "`prefer` takes 2 responses, found 1"),
        ({"favour": ["chosen", "rejected"]}, "no treatment `favour`"),
        ({"imitate": ["best"]}, "chosen"),
        ({"imitate": ["chosen"], "keep": ["chosen"]}, "expected one treatment"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(plan, message, configured):
    with pytest.raises(ValueError, match=message):
        settings_of("trace", configured, loss={"plans": {"invert": plan}})


def test_a_method_is_added_by_one_file(configured, tmp_path):
    """As docs/how-to/compare-methods.md says: its own example, taken from the page."""
    page = Path(ROOT / "docs/how-to/compare-methods.md").read_text(encoding="utf-8")
    example = page.partition('```yaml title="conf/base/methods/gentle-dpo.yml"\n')[2].partition("```")[0]
    (tmp_path / "gentle-dpo.yml").write_text(example)
    assert yaml.safe_load(example)["title"]
    plans = plans_of("gentle-dpo", configured, tmp_path)
    assert plans["punish_corrected"] == "imitate correction"
    assert plans["punish"] is None
    assert settings_of("gentle-dpo", configured, tmp_path).loss.invert == "ipo"


def test_a_recipe_changes_nothing_but_what_it_names():
    recipe = Recipe(title="T", source="S", summary="S", loss={"beta": 0.5})
    base = {"loss": {"beta": 0.1, "kl_weight": 2.0}, "seed": 3, "training": {"lora": {"rank": 2}}}
    changed = apply_recipe(base, recipe, {})
    assert changed == base | {"loss": {"beta": 0.5, "kl_weight": 2.0}}
    assert base["loss"]["beta"] == 0.1
