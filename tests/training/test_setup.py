"""Weights meet their pairs, a run is known by its settings, and what is saved is what was trained."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
from peft import PeftModel
from pydantic import ValidationError
from tiny_models import PARAMETERS, load_model, save_model

from realignment.objective.hybrid import Treatment
from realignment.parameters import ImpactParameters, LossParameters, TrainingParameters
from realignment.pipelines.impact.nodes import weigh_conflicts
from realignment.records import DataError
from realignment.tracking.lineage import compute_run_key
from realignment.training.online_weights import OnlineWeightsError, check_options
from realignment.training.run import HISTORY_COLUMNS, TrainingError, choose_learning_rate
from realignment.training.setup import load_training_setup

LOSS = LossParameters(beta=0.3, retain_weight=0.5, anchor_weight=0.1)
TRAINING = TrainingParameters(
    lora={"rank": 2, "alpha": 4, "target_modules": "all-linear"}, max_kl=1e6, learning_rate=0.05,
    batch_size=4, max_response_tokens=12, epochs=3, warmup_share=0, checkpoint_steps=2,
    trainer={"save_total_limit": 9},
)  # fmt: skip
UNIFORM = ImpactParameters(normalize="uniform", token_budget=64)
SCORED = ImpactParameters(max_negative_share=1.0, token_budget=64)  # whatever the scores' signs
MEAN_ONE = ImpactParameters(token_budget=64)
KINDS = {
    "invert": ("INVERT", None),
    "correct": ("PUNISH", "right"),
    "suppress": ("PUNISH", None),
    "affirm": ("RETAIN", None),
}
PAIRS = pd.DataFrame(
    [
        {"pair_id": f"{name}-{i}", "prompt": f"Why{i}?", "messages": None, "chosen": f"bad{i}"}
        | {"rejected": f"worse{name}", "correction": correction, "disposition": disposition}
        | {"rejected_verdict": disposition == "INVERT"}
        for i in range(2)
        for name, (disposition, correction) in KINDS.items()
    ]
)
CONFLICTS = PAIRS[PAIRS["disposition"] != "RETAIN"].reset_index(drop=True)
GOLD = CONFLICTS.assign(preferred="good", dispreferred=CONFLICTS["chosen"])


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("reference"), seed=3, scale=0.3)


@pytest.fixture(scope="module")
def opened(reference):
    def opened(loss=LOSS, training=TRAINING):
        return load_training_setup(reference, PARAMETERS, training, loss, seed=0)

    return opened


@pytest.fixture(scope="module")
def setup(opened):
    """For what leaves the model as it is."""
    return opened()


@pytest.fixture(scope="module")
def weights(setup):
    return setup.compute_weights(CONFLICTS, GOLD, UNIFORM)


# --- weights


def test_every_conflict_has_its_weight_and_its_references_in_the_order_of_its_treatment(setup, weights):
    numbered = weights.assign(weight=[0.5 * n for n in range(len(weights))])
    batch = {
        example.pair_id: example for example in setup.build_weighted_examples(PAIRS, numbered.iloc[::-1])
    }
    assert list(batch) == list(PAIRS["pair_id"])
    rows = numbered.set_index("pair_id")
    for name, columns in (
        ("invert-0", ("rejected", "chosen")),
        ("correct-1", ("correction", "chosen", "rejected")),
        ("suppress-1", ("chosen", "rejected")),
    ):
        assert batch[name].weight == rows.loc[name, "weight"]
        assert batch[name].reference == tuple(rows.loc[name, f"reference_{column}"] for column in columns)


def test_a_retained_pair_needs_no_weight(setup, weights):
    retained = [e for e in setup.build_weighted_examples(PAIRS, weights) if not e.treatment.is_conflict]
    assert [(e.treatment, e.weight, e.reference) for e in retained] == [(Treatment.AFFIRM, 1.0, ())] * 2


def test_without_retain_weight_no_pair_is_affirmed(opened, weights):
    batch = opened(loss=LOSS.model_copy(update={"retain_weight": 0.0})).build_weighted_examples(
        PAIRS, weights
    )
    assert [e.treatment for e in batch if not e.treatment.is_conflict] == [Treatment.KEEP] * 2


def test_a_conflict_without_weight_is_refused(setup, weights):
    with pytest.raises(
        DataError, match=r"2 conflicts have no impact weight.*first: correct-0.*--pipelines impact"
    ):
        setup.build_weighted_examples(PAIRS, weights[~weights["pair_id"].isin(["correct-0", "suppress-1"])])


def test_weights_that_were_taken_with_another_treatment_are_refused(opened, setup, weights):
    """Suppressed then, corrected now: the reference of the correction is not known."""
    suppressed = opened(loss=LOSS.model_copy(update={"use_corrections": False})).compute_weights(
        CONFLICTS, GOLD, UNIFORM
    )
    with pytest.raises(DataError, match=r"2 conflicts .*first: correct-0.*`loss.use_corrections`"):
        setup.build_weighted_examples(PAIRS, suppressed)


# --- the key of a run

MANIFEST = {"stage": "impact", "outputs": {"impact_weights": "a1"}}
SETTINGS = (PARAMETERS, LOSS, TRAINING)
FIELDS = [(i, name) for i, settings in enumerate(SETTINGS) for name in type(settings).model_fields]


def another(settings, name):
    """The settings with another value of one field: the first of these that the field accepts."""
    value = getattr(settings, name)
    words = ["cuda", "float16", "ipo", "apo_down", "states", "jvp", "kfac", "nf4", "sum", "other"]
    numbers = [value + 1, value / 2, 0.25] if isinstance(value, int | float) else []
    mappings = [{"weight_decay": 0.1}, {"invert": None}]
    for candidate in [not value, *numbers, *words, *mappings, 32, None]:
        try:
            changed = type(settings).model_validate(settings.model_dump() | {name: candidate})
        except ValidationError:
            continue
        if getattr(changed, name) != value:
            return changed
    raise AssertionError(f"no other value of {name} found")


@pytest.mark.parametrize(
    ("place", "field"), FIELDS, ids=[f"{type(SETTINGS[i]).__name__}.{name}" for i, name in FIELDS]
)
def test_another_value_of_any_setting_is_another_run(place, field):
    changed = [another(s, field) if i == place else s for i, s in enumerate(SETTINGS)]
    assert compute_run_key(MANIFEST, *changed, 0) != compute_run_key(MANIFEST, *SETTINGS, 0)


@pytest.mark.parametrize("field", type(TRAINING.lora).model_fields)
def test_another_adapter_is_another_run(field):
    changed = TRAINING.model_copy(update={"lora": another(TRAINING.lora, field)})
    assert compute_run_key(MANIFEST, PARAMETERS, LOSS, changed, 0) != compute_run_key(MANIFEST, *SETTINGS, 0)


def test_another_seed_or_other_inputs_are_another_run_and_the_same_are_the_same():
    key = compute_run_key(MANIFEST, *SETTINGS, 0)
    assert (
        compute_run_key(json.loads(json.dumps(MANIFEST)), *(s.model_copy(deep=True) for s in SETTINGS), 0)
        == key
    )
    assert compute_run_key(dict(reversed(MANIFEST.items())), *SETTINGS, 0) == key
    assert compute_run_key(MANIFEST, *SETTINGS, 1) != key
    assert compute_run_key(MANIFEST | {"outputs": {"impact_weights": "b2"}}, *SETTINGS, 0) != key


# --- training

KEY = "k" * 64
IDS = torch.tensor([[5, 9, 33, 60, 7, 2, 41]])


@pytest.fixture(scope="module")
def trained(opened, weights, tmp_path_factory):
    """Work folder, model folder and history of a whole run of six steps, with a checkpoint every two."""
    work, setup = tmp_path_factory.mktemp("work"), opened()
    folder, history = setup.train(setup.build_weighted_examples(PAIRS, weights), work_folder=work, key=KEY)
    return work, folder, history


def logits(model):
    with torch.no_grad():
        return model(IDS).logits


def test_the_saved_model_has_the_logits_of_the_reference_with_the_adapter(trained, reference):
    _, folder, history = trained
    merged, base = load_model(folder)[0], load_model(reference)[0]
    before = logits(base)
    adapted = PeftModel.from_pretrained(base, f"{folder}/adapter").double().eval()
    torch.testing.assert_close(logits(merged), logits(adapted), rtol=1e-4, atol=1e-5)
    assert (logits(merged) - before).abs().max() > 0.1
    assert list(history.columns) == list(HISTORY_COLUMNS)
    assert list(history["step"]) == [1, 2, 3, 4, 5, 6]


def test_the_saved_model_is_float32_and_comes_with_its_tokenizer(trained):
    config = json.loads((Path(trained[1]) / "config.json").read_text())
    assert config["dtype"] == "float32"
    assert load_model(trained[1])[1]("Why?")["input_ids"]


@pytest.fixture
def interrupted(trained, tmp_path):
    """The work folder of a run that was killed after its second step, which is marked in the log."""
    left = tmp_path / KEY[:16] / "checkpoints/checkpoint-2"
    shutil.copytree(trained[0] / KEY[:16] / "checkpoints/checkpoint-2", left)
    state = json.loads((left / "trainer_state.json").read_text())
    state["log_history"][0]["loss"] = 123.0
    (left / "trainer_state.json").write_text(json.dumps(state))
    return tmp_path


def test_a_run_with_the_same_key_goes_on_from_the_checkpoint_that_was_left(
    opened, weights, trained, interrupted
):
    setup = opened()
    folder, history = setup.train(
        setup.build_weighted_examples(PAIRS, weights), work_folder=interrupted, key=KEY
    )
    assert history["loss"].iloc[0] == 123.0
    pd.testing.assert_series_equal(history["loss"].iloc[1:], trained[2]["loss"].iloc[1:])
    resumed, whole = (load_model(path)[0].state_dict() for path in (folder, trained[1]))
    torch.testing.assert_close(resumed, whole, rtol=0, atol=0)


def test_a_run_with_another_key_begins_anew(opened, weights, trained, interrupted):
    setup = opened()
    _, history = setup.train(
        setup.build_weighted_examples(PAIRS, weights), work_folder=interrupted, key="o" * 64
    )
    pd.testing.assert_frame_equal(history, trained[2])


def test_a_run_with_online_weights_goes_on_from_its_checkpoint_to_the_same_model(opened, weights, tmp_path):
    """The gold gradient in use, and the running means, are kept beside every checkpoint."""
    renewed = TRAINING.model_copy(update={"fresh_weights_every": 3})

    def run(folder):
        setup = opened(training=renewed)
        online_weights = setup.online_weights(GOLD, MEAN_ONE)
        return setup.train(
            setup.build_weighted_examples(PAIRS, weights),
            work_folder=folder,
            key=KEY,
            online_weights=online_weights,
        )

    whole, history = run(tmp_path / "whole")
    checkpoints = sorted((tmp_path / "whole" / KEY[:16] / "checkpoints").iterdir())
    assert len(checkpoints) > 1
    interrupted = tmp_path / "interrupted" / KEY[:16] / "checkpoints"
    shutil.copytree(checkpoints[0], interrupted / checkpoints[0].name)
    again, resumed = run(tmp_path / "interrupted")
    pd.testing.assert_frame_equal(resumed.tail(2), history.tail(2))
    models = [load_model(folder)[0].state_dict() for folder in (whole, again)]
    torch.testing.assert_close(*models)


def test_without_the_parameter_there_are_no_online_weights(setup):
    assert setup.online_weights(GOLD, MEAN_ONE) is None


@pytest.mark.parametrize(
    "options", [{"curvature": "kfac"}, {"normalize": "uniform"}, {"normalize": "l1"}], ids=str
)
def test_what_online_weights_would_ignore_is_refused_by_both_stages(opened, options):
    training, ((name, value),) = TRAINING.model_copy(update={"fresh_weights_every": 2}), options.items()
    impact, message = (
        MEAN_ONE.model_copy(update=options),
        rf"would leave `impact\.{name}: {value}` out; expected",
    )
    with pytest.raises(OnlineWeightsError, match=message):
        opened(training=training).online_weights(GOLD, impact)
    with pytest.raises(OnlineWeightsError, match=message):
        weigh_conflicts(PAIRS, GOLD, {}, {}, PARAMETERS, LOSS, training, impact, 0)
    check_options(impact, TRAINING, LOSS)
    check_options(MEAN_ONE, training, LOSS)


@pytest.mark.parametrize(
    ("width", "lora", "expected"),
    [(576, TRAINING.lora, 1e-3), (4096, TRAINING.lora, 2.16e-4), (4096, None, 2.16e-5)],
)
def test_the_learning_rate_follows_the_models_width_unless_it_is_given(width, lora, expected):
    automatic = TRAINING.model_copy(update={"learning_rate": "auto", "lora": lora})
    assert choose_learning_rate(automatic, width) == pytest.approx(expected, rel=0.01)
    assert choose_learning_rate(TRAINING, width) == TRAINING.learning_rate


def test_an_automatic_learning_rate_is_a_number_before_training(opened):
    setup = opened(training=TRAINING.model_copy(update={"learning_rate": "auto"}))
    width = setup.model.config.hidden_size
    assert setup.training.learning_rate == pytest.approx(1e-3 * (576 / width) ** 0.781)


@pytest.mark.parametrize("error_rate", [0.41, 0.5, 0.6])
def test_an_oracle_that_errs_on_nearly_half_cannot_be_trained_by(error_rate):
    """At ε = 0.49 the robust loss would multiply a pair by fifty."""
    with pytest.raises(ValidationError, match="error_rate"):
        LossParameters(invert="robust", error_rate=error_rate)


def test_online_weights_of_the_robust_loss_are_refused(opened):
    """Their scores come from the gradient that is trained, which counts the errors already."""
    training = TRAINING.model_copy(update={"fresh_weights_every": 2})
    with pytest.raises(OnlineWeightsError, match=r"would count twice.*fresh_weights_every: null"):
        check_options(MEAN_ONE, training, LOSS.model_copy(update={"invert": "robust"}))


def test_a_lora_on_four_bit_weights_is_scored_trained_and_merged_into_the_whole_weights(reference, tmp_path):
    pytest.importorskip("bitsandbytes", reason="the extra [qlora] is not installed")
    parameters = PARAMETERS.model_copy(update={"quantize": "nf4"})
    setup = load_training_setup(reference, parameters, TRAINING, LOSS, seed=0)
    assert type(setup.model.get_base_model().model.layers[0].mlp.up_proj.base_layer).__name__ == "Linear4bit"
    weights = setup.compute_weights(CONFLICTS, GOLD, SCORED)
    assert weights["score"].abs().min() > 0
    folder, history = setup.train(
        setup.build_weighted_examples(PAIRS, weights), work_folder=tmp_path, key=KEY
    )
    assert history["loss"].iloc[-1] < history["loss"].iloc[0]
    merged = PeftModel.from_pretrained(load_model(reference)[0], f"{folder}/adapter").merge_and_unload()
    torch.testing.assert_close(load_model(folder)[0].state_dict(), merged.state_dict(), rtol=1e-5, atol=1e-6)


def test_four_bit_weights_cannot_all_be_trained(reference):
    parameters = PARAMETERS.model_copy(update={"quantize": "nf4"})
    with pytest.raises(TrainingError, match=r"quantize: nf4.*lora. is null"):
        load_training_setup(reference, parameters, TRAINING.model_copy(update={"lora": None}), LOSS, seed=0)


CHECKPOINTED = TRAINING.model_copy(update={"trainer": TRAINING.trainer | {"activation_checkpointing": True}})


@pytest.mark.parametrize(
    "options",
    [{}, {"engine": "jvp"}, {"engine": "finite_difference"}, {"curvature": "kfac"}],
    ids=lambda options: str(*options.values()) if options else "ghost",
)
@pytest.mark.parametrize("lora", [TRAINING.lora, None], ids=["LoRA", "all"])
def test_scores_are_the_same_with_activations_computed_again(opened, options, lora):
    impact, tables = SCORED.model_copy(update=options), []
    for training in (TRAINING, CHECKPOINTED):
        tables.append(
            opened(training=training.model_copy(update={"lora": lora})).compute_weights(
                CONFLICTS, GOLD, impact
            )
        )
    pd.testing.assert_frame_equal(*tables)


def test_asked_for_in_the_configuration_layers_are_computed_again_in_scores_and_references_too(opened):
    """A layer's inside runs once more in every backward, which Trainer would have in training alone."""
    calls = {}
    for name, training in (("kept", TRAINING), ("again", CHECKPOINTED)):
        setup, calls[name] = opened(training=training.model_copy(update={"fresh_weights_every": 1})), []
        layer = setup.model.get_base_model().model.layers[0]
        layer.input_layernorm.register_forward_hook(lambda *_, seen=calls[name]: seen.append(1))
        setup.compute_weights(CONFLICTS, GOLD, SCORED)
        online_weights = setup.online_weights(GOLD, MEAN_ONE)
        before = len(calls[name])
        online_weights.renew_gold_gradient(setup.model, 0)
        calls[name] = (before - len(online_weights.gold), len(calls[name]) - before)
    assert calls["again"] == tuple(2 * n for n in calls["kept"])


def test_a_reference_on_disk_is_kept_with_checkpointing_as_without(opened, weights, tmp_path):
    losses = []
    for name, training in (("kept", TRAINING), ("again", CHECKPOINTED)):
        setup = opened(training=training.model_copy(update={"reference": "states", "epochs": 1}))
        batch = setup.build_weighted_examples(PAIRS, weights)
        losses.append(setup.train(batch, work_folder=tmp_path / name, key=KEY)[1]["loss"].tolist())
    assert losses[0] == losses[1]


@pytest.mark.parametrize(
    ("options", "near"),
    [({"trainer": TRAINING.trainer | {"gradient_checkpointing": True}}, 1e-4), ({"autocast": True}, 0.2)],
)
@pytest.mark.parametrize("fresh", [None, 2])
def test_checkpointing_and_autocast_train_as_without_them(opened, weights, tmp_path, fresh, options, near):
    """Checkpointing changes no number; autocast rounds."""
    results = []
    for chosen in ({}, options):
        changes = {"fresh_weights_every": fresh} | chosen
        setup = opened(training=TRAINING.model_copy(update=changes))
        folder = tmp_path / str(len(results))
        online_weights = setup.online_weights(GOLD, MEAN_ONE)
        batch = setup.build_weighted_examples(PAIRS, weights)
        results.append(
            setup.train(batch, work_folder=folder, key=KEY, online_weights=online_weights)[1]["loss"].tolist()
        )
    assert results[1] == pytest.approx(results[0], rel=near)
    assert (results[1] == results[0]) != ("autocast" in options)


def test_full_fine_tuning_saves_the_model_alone_and_moves_every_matrix(opened, reference, tmp_path):
    training = TRAINING.model_copy(update={"lora": None, "learning_rate": 1e-2})
    setup = opened(training=training)
    batch = setup.build_weighted_examples(PAIRS, setup.compute_weights(CONFLICTS, GOLD, UNIFORM))
    folder, _ = setup.train(batch, work_folder=tmp_path, key=KEY)
    after, before = (load_model(path)[0].state_dict() for path in (folder, reference))
    assert [name for name in before if name.endswith("proj.weight") and after[name].equal(before[name])] == []
    assert not (tmp_path / KEY[:16] / "model/adapter").exists()
