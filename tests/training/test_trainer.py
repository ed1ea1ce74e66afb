import copy
import logging
import math
from dataclasses import replace

import naive
import pytest
import torch
from tiny_decoders import SIZES, move, tiny_examples, tiny_model, tiny_tokenizer, with_lora
from training_cases import (
    AFFIRM,
    KEEP,
    LORA,
    OBJECTIVE,
    PREFER,
    SUPPRESS,
    arguments,
    examples_of,
    open_trainer,
    settings,
)
from transformers import LlamaConfig, LlamaForCausalLM, TrainerCallback

from realignment.likelihood.backbone import autocast
from realignment.likelihood.packing import Layout
from realignment.likelihood.tokenization import TokenizedPair
from realignment.model.adapters import make_trainable
from realignment.objective.hybrid import Example, Objective, Treatment
from realignment.records import HealthError
from realignment.training.callbacks import DriftGuard, ProgressBar
from realignment.training.collation import Collator
from realignment.training.online_weights import OnlineWeights
from realignment.training.run import HISTORY_COLUMNS, TrainingError, count_steps, train, training_arguments
from realignment.training.trainer import RealignTrainer


def fresh_model(*, dropout=0.0, dtype=torch.float32):
    return make_trainable(tiny_model(dtype=dtype), LORA.model_copy(update={"dropout": dropout}), seed=0)


def run(model, folder, *, examples=None, epochs=1.0, callbacks=(), reference_model=None, **options):
    return train(
        model,
        examples or examples_of(tiny_model(dtype=torch.float32)),
        objective=OBJECTIVE,
        arguments=arguments(folder, **options),
        layout=Layout(0),
        reference_model=reference_model,
        epochs=epochs,
        callbacks=callbacks,
    )


def parameters(model):
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def test_the_error_rate_of_a_pair_reaches_its_loss_in_training(tmp_path):
    model = fresh_model()
    (example, *_) = [e for e in examples_of(tiny_model(dtype=torch.float32)) if e.treatment == 0]
    losses = {}
    for rate in (None, 0.0, 0.25):
        # Away from the reference, where the robust loss depends on ε.
        shifted = replace(example, error_rate=rate, reference=(-1.0, -9.0))
        trainer = open_trainer(model, tmp_path, objective=Objective(0.3, "robust", error_rate=0.25))
        losses[rate] = float(trainer.compute_loss(model, Collator(Layout(0))([shifted])).detach())
    assert losses[None] == pytest.approx(losses[0.25])
    assert losses[0.0] != pytest.approx(losses[0.25], rel=1e-3)


def assert_loss_and_gradients_match(trainer, model, reference_model, examples, objective):
    loss = trainer.compute_loss(model, Collator(Layout(0))(examples))
    twin, _ = naive.batch_loss(model, reference_model, examples, objective)
    assert float(loss.detach()) == pytest.approx(float(twin.detach()), rel=1e-6)
    ours, theirs = naive.gradient(model, loss), naive.gradient(model, twin)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
    assert all(g.abs().max() > 0 for g in ours.values())


def test_loss_and_gradients_of_a_mixed_batch_match_plain_forwards_with_adapters(tmp_path):
    reference = tiny_model()
    model = with_lora(tiny_model(), moved=True)
    trainer = open_trainer(model, tmp_path)
    assert_loss_and_gradients_match(trainer, model, reference, examples_of(reference), OBJECTIVE)


def test_loss_and_gradients_of_a_mixed_batch_match_plain_forwards_when_everything_is_trained(tmp_path):
    reference, model = tiny_model(), move(tiny_model(), scale=0.02)
    trainer = open_trainer(model, tmp_path, reference_model=reference.requires_grad_(False))
    assert_loss_and_gradients_match(trainer, model, reference, examples_of(reference), OBJECTIVE)


@pytest.mark.parametrize("treatment", Treatment)
def test_a_batch_of_one_treatment_alone_matches_plain_forwards(tmp_path, treatment):
    reference = tiny_model()
    model = with_lora(tiny_model(), moved=True)
    examples = examples_of(reference, [treatment] * 3, [0.5, 1.0, 2.0])
    trainer = open_trainer(model, tmp_path)
    assert_loss_and_gradients_match(trainer, model, reference, examples, OBJECTIVE)


def test_at_the_reference_the_kl_is_zero_and_every_preference_is_undecided(tmp_path):
    model, objective = with_lora(tiny_model()), Objective(beta=0.3, suppress="npo_paper")
    examples = examples_of(tiny_model(), weights=[1.0] * 10)
    trainer = open_trainer(model, tmp_path, objective=objective)
    logs: dict[str, float] = {}
    trainer.compute_loss(model, Collator(Layout(0))(examples))
    trainer.log(logs)
    log_two = 0.6931471805599453
    assert logs["retain_kl"] == pytest.approx(0, abs=1e-12)
    # Two of four retained pairs keep a preference; without an anchor the other two have no loss.
    assert logs["retain_loss"] == pytest.approx(log_two / 2, rel=1e-5)
    assert logs["invert_loss"] == pytest.approx(log_two, rel=1e-5)
    assert logs["punish_loss"] == pytest.approx(2 * log_two, rel=1e-5)
    for name in ("margin", "logratio_preferred", "logratio_dispreferred", "logratio_retained"):
        assert logs[name] == pytest.approx(0, abs=1e-5), name


@pytest.mark.parametrize("treatment", [KEEP, AFFIRM])
def test_the_reference_of_every_response_is_the_untouched_model_without_dropout(tmp_path, treatment):
    """GPT-2 has dropout of its own, which switching the adapters off does not touch."""
    model = with_lora(tiny_model("gpt2"), moved=True, dropout=0.5, targets=["c_fc"]).train()
    trainer, untouched = open_trainer(model, tmp_path), tiny_model("gpt2")
    (example,) = tiny_examples([treatment])
    (part,) = Collator(Layout(0))([example])["parts"]
    reference = trainer._reference(model, part)
    plain = []
    for response in example.tokens.responses:
        ids = torch.tensor([[*example.tokens.prompt, *response]])
        plain.append(untouched.transformer(ids).last_hidden_state[0, len(example.tokens.prompt) - 1 : -1])
    torch.testing.assert_close(reference.hidden, torch.cat(plain).detach())
    assert reference.head.weight.equal(untouched.lm_head.weight)
    assert model.training


@pytest.mark.parametrize("retain_weight", [0.0, 0.6])
def test_the_kl_of_an_affirmed_pair_is_that_of_its_chosen_response_alone(tmp_path, retain_weight):
    reference, model = tiny_model(), with_lora(tiny_model(), moved=True)
    trainer = open_trainer(model, tmp_path, objective=Objective(beta=0.3, retain_weight=retain_weight))
    batch, logs = examples_of(reference, [AFFIRM, KEEP, AFFIRM], [1.0] * 3), {}
    loss = trainer.compute_loss(model, Collator(Layout(0))(batch))
    trainer.log(logs)
    kl = sum(float(naive.token_kl(model, reference, e.tokens).detach()) for e in batch) / 3
    assert logs["retain_kl"] == pytest.approx(kl, rel=1e-6)
    expected = 0.1 * kl + retain_weight * logs["retain_loss"]
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-6)


def test_a_reference_that_is_given_for_a_retained_pair_is_not_used(tmp_path):
    model = with_lora(tiny_model(), moved=True)
    trainer, collate = open_trainer(model, tmp_path), Collator(Layout(0))
    batch = examples_of(tiny_model(), [AFFIRM, PREFER, KEEP], [1.0] * 3)
    wrong = [
        e if e.treatment is PREFER else replace(e, reference=(-1e3,) * len(e.tokens.responses)) for e in batch
    ]
    losses = [float(trainer.compute_loss(model, collate(examples)).detach()) for examples in (batch, wrong)]
    assert losses[0] == losses[1]


@pytest.mark.parametrize("token_budget", [1, 15, 40])
def test_a_batch_taken_in_parts_has_the_loss_gradients_and_figures_of_the_whole(tmp_path, token_budget):
    model = with_lora(tiny_model(), moved=True)
    trainer, examples = open_trainer(model, tmp_path), examples_of(tiny_model())
    whole, parts = (Collator(Layout(0), budget)(examples) for budget in (None, token_budget))
    assert len(parts["parts"]) > len(whole["parts"])
    loss, gradients, logs = step(trainer, model, whole)
    parts_loss, parts_gradients, parts_logs = step(trainer, model, parts)
    torch.testing.assert_close(parts_loss, loss)
    torch.testing.assert_close(parts_gradients, gradients)
    assert parts_logs == pytest.approx(logs)


def wider_examples(treatments, *, seed=1):
    """Examples with prompts and responses of the lengths of real ones, over 512 tokens."""
    generator = torch.Generator().manual_seed(seed)

    def draw(low, high):
        length = int(torch.randint(low, high, (), generator=generator))
        return torch.randint(3, 512, (length,), generator=generator).tolist()

    pairs = [TokenizedPair(draw(30, 70), (draw(40, 150), draw(40, 150))) for _ in treatments]
    return [
        Example(f"pair-{i}", tokens, treatment, 0.0, (-1.0, -1.0) if treatment.is_conflict else ())
        for i, (tokens, treatment) in enumerate(zip(pairs, treatments, strict=True))
    ]


@pytest.mark.parametrize("precision", ["autocast", "bfloat16"])
def test_a_fresh_adapter_is_exactly_at_the_reference_beside_conflicts_in_half_precision(tmp_path, precision):
    """Over other rows attention rounds otherwise: 6e-9 nats a token here, 2.5e-5 with 135 M parameters."""
    torch.manual_seed(0)
    sizes = SIZES | {
        "vocab_size": 512,
        "hidden_size": 64,
        "intermediate_size": 128,
        "initializer_range": 0.05,
    }
    base = LlamaForCausalLM(LlamaConfig(**sizes)).eval()
    autocast(base) if precision == "autocast" else base.to(torch.bfloat16)
    model = make_trainable(base, LORA, seed=0)
    trainer = open_trainer(model, tmp_path, objective=Objective(beta=0.1, kl_weight=1.0))
    collate, logs = Collator(Layout(0), fixed_weights=False), {}
    trainer.training_step(model, collate(wider_examples([PREFER, AFFIRM] * 6)))
    trainer.log(logs)
    assert logs["retain_kl"] == 0.0
    assert {float(p.grad.abs().max()) for p in model.parameters() if p.requires_grad} == {0.0}


def step(trainer, model, batch):
    """Loss, gradients and figures of one training step."""
    logs: dict[str, float] = {}
    loss = trainer.training_step(model, batch)
    trainer.log(logs)
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return loss, gradients, logs


def test_conflicts_of_weight_zero_are_not_computed_and_nothing_else_differs(tmp_path):
    model = with_lora(tiny_model(), moved=True)
    trainer = open_trainer(model, tmp_path)
    examples = examples_of(tiny_model(), weights=[0.0, 1.0, 0.0, 0.5, 2.0, 0.0, 1.0, 1.5, 1.75, 0.5])
    batches = [Collator(Layout(0), fixed_weights=fixed)(examples) for fixed in (False, True)]
    assert [sum(len(p["treatments"]) for p in batch["parts"]) for batch in batches] == [10, 7]
    (loss, gradients, logs), (left_out, same, fewer) = (step(trainer, model, batch) for batch in batches)
    torch.testing.assert_close(left_out, loss)
    torch.testing.assert_close(same, gradients)
    terms = ("invert_loss", "punish_loss", "retain_loss", "retain_kl", "logratio_retained")
    assert {name: fewer[name] for name in terms} == pytest.approx({name: logs[name] for name in terms})
    assert fewer["margin"] != pytest.approx(logs["margin"], rel=1e-3), "it is that of the trained pairs"


def test_a_batch_in_which_no_pair_counts_has_a_gradient_of_zero_and_the_optimizer_coasts(tmp_path):
    model = with_lora(tiny_model(), moved=True)
    batch = Collator(Layout(0))(examples_of(tiny_model(), [PREFER, SUPPRESS], [0.0, 0.0]))
    loss, gradients, logs = step(open_trainer(model, tmp_path), model, batch)
    assert (float(loss), logs["invert_loss"], logs["punish_loss"]) == (0.0, 0.0, 0.0)
    assert {float(g.abs().max()) for g in gradients.values()} == {0.0}
    assert set(gradients) == {name for name, p in model.named_parameters() if p.requires_grad}


def test_a_model_whose_prompts_are_not_shared_trains_to_the_same_gradients(tmp_path):
    reference = tiny_model()
    model = with_lora(tiny_model(), moved=True)
    trainer, examples = open_trainer(model, tmp_path), examples_of(reference)
    losses = [trainer.compute_loss(model, Collator(Layout(0, share))(examples)) for share in (True, False)]
    torch.testing.assert_close(*(naive.gradient(model, loss) for loss in losses))


def test_figures_of_a_treatment_the_batch_lacks_are_left_out_of_the_means(tmp_path):
    model = with_lora(tiny_model(), moved=True)
    trainer, collate = open_trainer(model, tmp_path), Collator(Layout(0))
    retained, preferred = (examples_of(tiny_model(), [t], [1.0]) for t in (KEEP, PREFER))
    alone: dict[str, float] = {}
    trainer.compute_loss(model, collate(retained))
    trainer.log(alone)
    both: dict[str, float] = {}
    for batch in (retained, preferred):
        trainer.compute_loss(model, collate(batch))
    trainer.log(both)
    assert both["retain_kl"] == pytest.approx(alone["retain_kl"])
    assert alone["retain_kl"] > 0
    assert both["retain_loss"] == pytest.approx(alone["retain_loss"])
    assert "invert_loss" not in alone


def test_the_loss_goes_down_over_thirty_steps_and_the_history_has_every_column(tmp_path):
    model = fresh_model()
    history = run(model, tmp_path, epochs=15, steps=30, callbacks=[ProgressBar()])
    assert [entry["step"] for entry in history] == list(range(1, 31))
    assert set(HISTORY_COLUMNS) <= set().union(*history)
    first, last = (sum(e["loss"] for e in part) / 5 for part in (history[:5], history[-5:]))
    assert last < 0.8 * first
    assert history[-1]["margin"] > 1
    assert history[-1]["epoch"] == pytest.approx(15)


def test_two_runs_with_one_seed_give_identical_histories_and_another_seed_another(tmp_path):
    histories = [
        run(fresh_model(dropout=0.2), tmp_path / name, epochs=2, seed=seed)
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    assert histories[0] == histories[1]
    assert histories[0] != histories[2]


class Kill(TrainerCallback):
    """The machine goes down after a step."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **_):
        if state.global_step == self.step:
            raise KeyboardInterrupt


@pytest.mark.parametrize("everything", [False, True])
def test_a_run_that_is_killed_goes_on_from_its_checkpoint_to_the_same_parameters(tmp_path, everything):
    def start():
        if not everything:
            return fresh_model(dropout=0.2), None
        model = make_trainable(tiny_model(dtype=torch.float32), None, seed=0)
        return model, copy.deepcopy(model).requires_grad_(False)

    options = {"epochs": 4, "steps": 8, "checkpoint_steps": 3, "learning_rate": 1e-3}
    whole, reference = start()
    expected = run(whole, tmp_path / "whole", reference_model=reference, **options)
    killed, reference = start()
    with pytest.raises(KeyboardInterrupt):
        run(killed, tmp_path / "killed", reference_model=reference, callbacks=[Kill(5)], **options)
    resumed, reference = start()
    history = run(resumed, tmp_path / "killed", reference_model=reference, **options)
    torch.testing.assert_close(parameters(resumed), parameters(whole), rtol=0, atol=0)
    assert [e["step"] for e in history] == [e["step"] for e in expected]
    assert [e["loss"] for e in history] == [e["loss"] for e in expected]


def test_accumulated_micro_batches_of_like_composition_train_like_one_batch(tmp_path):
    """Means over a micro-batch's own rows: equal only where every micro-batch has the same treatments."""
    examples = examples_of(tiny_model(dtype=torch.float32), [PREFER] * 8, [1.0] * 8)
    one, many = fresh_model(), fresh_model()
    run(one, tmp_path / "one", examples=examples, batch_size=8)
    run(many, tmp_path / "many", examples=examples, batch_size=2, accumulation_steps=4)
    moved = parameters(fresh_model())
    for name, value in parameters(one).items():
        torch.testing.assert_close(parameters(many)[name], value, rtol=1e-3, atol=1e-5)
        assert "lora_A" in name or not value.equal(moved[name])


def test_a_last_step_of_fewer_micro_batches_is_a_mean_over_those(tmp_path):
    """Six micro-batches, four a step: every loss is log 2, so every mean is."""
    examples = examples_of(tiny_model(dtype=torch.float32), [AFFIRM] * 6, [1.0] * 6)
    gold = OnlineWeights([Layout(0)([examples[0].tokens])], [torch.zeros(2)], 0.3, 1, False)
    histories = [
        train(
            fresh_model(),
            examples,
            objective=Objective(beta=0.3, retain_weight=1.0),
            arguments=arguments(
                tmp_path / name, batch_size=1, accumulation_steps=4, learning_rate=1e-12, logging_steps=1
            ),
            layout=Layout(0),
            online_weights=weights,
        )
        for name, weights in (("static", None), ("online", gold))
    ]
    for history in histories:
        assert [entry["loss"] for entry in history] == pytest.approx([math.log(2)] * 2)
    static, anew = ([entry["grad_norm"] for entry in history] for history in histories)
    assert static == pytest.approx(anew, rel=1e-4)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_is_refused_rather_than_without_effect(tmp_path, precision):
    with pytest.raises(TrainingError, match=r"training\.autocast: true"):
        arguments(tmp_path, trainer={precision: True})


@pytest.mark.parametrize("name", ["gradient_checkpointing", "activation_checkpointing"])
def test_reentrant_checkpoints_are_refused_because_no_gradient_would_reach_an_adapter(tmp_path, name):
    options = {name: True, f"{name}_kwargs": {"use_reentrant": True}}
    with pytest.raises(TrainingError, match=r"`use_reentrant: true`.*Leave `use_reentrant` out"):
        arguments(tmp_path, trainer=options)


def test_several_gpus_are_one_device_and_no_larger_batch(tmp_path, monkeypatch):
    """Of `nn.DataParallel` rows are no input; what runs on one GPU runs on the first of several."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    chosen = training_arguments(tmp_path, steps=2, device="cuda", settings=settings(batch_size=5), seed=0)
    assert (chosen.n_gpu, chosen.train_batch_size) == (1, 5)


def test_the_guard_stops_and_puts_back_parameters_whose_drift_is_within_the_limit(tmp_path, caplog):
    examples, model = examples_of(tiny_model(dtype=torch.float32)), fresh_model()
    guard = DriftGuard(max_kl=0.02)
    with caplog.at_level(logging.WARNING):
        history = run(model, tmp_path, epochs=20, batch_size=10, examples=examples, callbacks=[guard])
    assert guard.stopped_at == len(history) < 20
    assert history[-1]["retain_kl"] > 0.02 >= history[-2]["retain_kl"]
    _, terms = naive.batch_loss(model, tiny_model(dtype=torch.float32), examples, OBJECTIVE)
    assert float(terms["retain_kl"].detach()) == pytest.approx(history[-2]["retain_kl"], rel=1e-3)
    assert "training.learning_rate" in caplog.text


def test_a_model_that_begins_too_far_is_put_back_where_it_began(tmp_path):
    model = move(fresh_model(), scale=0.5)
    before, guard = parameters(model), DriftGuard(max_kl=1e-6)
    run(model, tmp_path, callbacks=[guard])
    assert guard.stopped_at == 1
    torch.testing.assert_close(parameters(model), before, rtol=0, atol=0)


def test_a_guard_that_is_not_needed_changes_nothing(tmp_path):
    with_guard, without = fresh_model(), fresh_model()
    run(with_guard, tmp_path / "a", callbacks=[DriftGuard(max_kl=1e6)])
    run(without, tmp_path / "b")
    torch.testing.assert_close(parameters(with_guard), parameters(without), rtol=0, atol=0)


def test_a_loss_that_is_not_finite_stops_the_run_at_its_step(tmp_path):
    examples = examples_of(tiny_model(dtype=torch.float32), [PREFER] * 4, [1.0, 1.0, 1.0, float("inf")])
    with pytest.raises(HealthError, match=r"The loss is inf at step 1 \(invert_loss inf.*learning_rate"):
        run(fresh_model(), tmp_path, examples=examples, batch_size=4)


def test_examples_without_reference_are_refused_but_for_retained_ones(tmp_path):
    examples = tiny_examples([KEEP, AFFIRM, PREFER, SUPPRESS])
    with pytest.raises(TrainingError, match=r"2 examples have no reference.*first: pair-2"):
        run(fresh_model(), tmp_path, examples=examples)


def test_training_everything_moves_the_model_and_not_its_frozen_copy(tmp_path):
    model = make_trainable(tiny_model(dtype=torch.float32), None, seed=0)
    reference = copy.deepcopy(model).requires_grad_(False)
    history = run(model, tmp_path, epochs=10, learning_rate=1e-3, reference_model=reference)
    assert history[-1]["loss"] < history[0]["loss"]
    untouched = tiny_model(dtype=torch.float32).state_dict()
    torch.testing.assert_close(reference.state_dict(), untouched, rtol=0, atol=0)
    assert all(not p.equal(untouched[name]) for name, p in model.named_parameters())


@pytest.mark.parametrize("trainer", [{"lerning_rate": 1e-3}, {"save_strategy": "sometimes"}])
def test_a_name_or_value_that_transformers_does_not_know_is_refused(tmp_path, trainer):
    with pytest.raises(TrainingError, match=r"`training\.trainer`.*Remove or correct"):
        arguments(tmp_path, trainer=trainer)


def test_what_training_trainer_names_overrides_our_choice(tmp_path):
    chosen = arguments(tmp_path, steps=40, warmup_share=0.1, trainer={"lr_scheduler_type": "linear"})
    assert chosen.lr_scheduler_type == "linear"
    assert chosen.warmup_steps == 4
    assert chosen.per_device_train_batch_size == 5


def test_batches_are_made_by_the_workers_that_are_asked_for_and_are_the_same(tmp_path):
    workers = {"dataloader_num_workers": 2, "dataloader_prefetch_factor": 3}
    model = fresh_model()
    examples = examples_of(tiny_model(dtype=torch.float32))
    options = {"train_dataset": examples, "data_collator": Collator(Layout(0)), "objective": OBJECTIVE}
    trainers = [
        RealignTrainer(model=model, args=arguments(tmp_path, trainer=trainer), **options)
        for trainer in ({}, workers)
    ]
    alone, helped = (trainer.get_train_dataloader() for trainer in trainers)
    assert (alone.num_workers, helped.num_workers, helped.prefetch_factor) == (0, 2, 3)
    for expected, batch in zip(alone, helped, strict=True):
        torch.testing.assert_close(batch, expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize(("epochs", "accumulation_steps"), [(1, 1), (1.5, 1), (1, 2), (0.3, 1), (2, 3)])
def test_steps_are_counted_as_they_are_taken(tmp_path, epochs, accumulation_steps):
    options = {"batch_size": 3, "accumulation_steps": accumulation_steps}
    history = run(fresh_model(), tmp_path, epochs=epochs, **options)
    assert len(history) == count_steps(10, epochs, **options)


def test_one_seed_gives_one_adapter_and_leaves_the_global_generator_alone():
    torch.manual_seed(9)
    expected = torch.rand(3)
    base = [tiny_model(dtype=torch.float32) for _ in range(3)]
    torch.manual_seed(9)
    adapters = [parameters(make_trainable(b, LORA, seed=s)) for b, s in zip(base, (0, 0, 1), strict=True)]
    assert torch.rand(3).equal(expected)
    torch.testing.assert_close(adapters[0], adapters[1], rtol=0, atol=0)
    assert any(not adapters[0][name].equal(adapters[2][name]) for name in adapters[0])
    assert all(not value.any() for name, value in adapters[0].items() if "lora_B" in name)


def test_without_an_adapter_every_parameter_is_trained():
    model = make_trainable(tiny_model().requires_grad_(False), None, seed=0)
    assert all(p.requires_grad for p in model.parameters())


def trl_batch(model, reference, folder, beta, *, loss="sigmoid", pairs=3):
    """TRL's trainer, and one batch of its own making."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    columns = {
        "prompt": ["How? ", "Why so? ", "When will it be? "],
        "chosen": ["Thus.", "Because it is.", "Now"],
        "rejected": ["I will not say.", "No", "Never, not even then"],
    }
    config = DPOConfig(
        str(folder), beta=beta, max_length=None, per_device_train_batch_size=3, gradient_checkpointing=False,
        bf16=False, use_cpu=True, report_to=[], dataloader_pin_memory=False, disable_dropout=False,
        loss_type=loss, label_smoothing=0.2 if loss == "robust" else 0.0,
    )  # fmt: skip
    trainer = DPOTrainer(
        model,
        reference,
        args=config,
        train_dataset=Dataset.from_dict({name: column[:pairs] for name, column in columns.items()}),
        processing_class=tiny_tokenizer(template=None),
    )
    return trainer, next(iter(trainer.get_train_dataloader()))


def to_examples(batch, reference):
    """TRL's rows [chosen …; rejected …] as our examples."""
    prompts, responses = [], []
    for ids, real, completion in zip(
        batch["input_ids"], batch["attention_mask"].bool(), batch["completion_mask"].bool(), strict=True
    ):
        prompts.append(ids[real & ~completion].tolist())
        responses.append(ids[completion].tolist())
    half = len(prompts) // 2
    pairs = [TokenizedPair(prompts[i], (responses[i], responses[half + i])) for i in range(half)]
    examples = tiny_examples([PREFER] * half)
    with torch.no_grad():
        references = [tuple(float(v) for v in naive.log_probabilities(reference, pair)) for pair in pairs]
    return [replace(e, tokens=t, reference=r) for e, t, r in zip(examples, pairs, references, strict=True)]


def turned_round(example):
    """The same responses in the other order: the treatment SUPPRESS takes the worse one first."""
    responses = example.tokens.responses[::-1]
    tokens = TokenizedPair(example.tokens.prompt, responses)
    return replace(example, tokens=tokens, treatment=SUPPRESS, reference=example.reference[::-1])


def imitated(example):
    """The preferred response alone, as fine-tuning has it."""
    tokens = TokenizedPair(example.tokens.prompt, example.tokens.responses[:1])
    return replace(example, tokens=tokens, treatment=Treatment.IMITATE, reference=example.reference[:1])


PARITY = {
    "sigmoid": (Objective(beta=0.3), lambda example: example, 3),
    "ipo": (Objective(beta=0.3, invert="ipo"), lambda example: example, 3),
    "robust": (Objective(beta=0.3, invert="robust", error_rate=0.2), lambda example: example, 3),
    "apo_down": (Objective(beta=0.3, suppress="apo_down"), turned_round, 3),
    # TRL takes the mean over the tokens of a batch, ours that of each answer: the same for one answer.
    "sft": (Objective(beta=0.3, anchor_weight=1.0, preference_weight=0.0), imitated, 1),
}


@pytest.mark.parametrize("loss", PARITY)
def test_with_preferences_alone_loss_and_gradients_equal_those_of_trls_dpo_trainer(tmp_path, loss):
    objective, convert, pairs = PARITY[loss]
    torch.manual_seed(0)
    reference = LlamaForCausalLM(LlamaConfig(**SIZES | {"vocab_size": 261}))
    model = move(copy.deepcopy(reference), scale=0.02)
    trainer, batch = trl_batch(
        model, copy.deepcopy(reference), tmp_path / "trl", beta=0.3, loss=loss, pairs=pairs
    )
    theirs = trainer.compute_loss(model, batch)
    theirs_gradient = naive.gradient(model, theirs)
    examples = [convert(example) for example in to_examples(batch, reference)]
    assert len({len(e.tokens) for e in examples}) == pairs
    ours_trainer = open_trainer(model, tmp_path / "ours", objective=objective, reference_model=reference)
    ours = ours_trainer.compute_loss(model, Collator(Layout(0))(examples))
    assert float(ours.detach()) == pytest.approx(float(theirs.detach()), abs=1e-5)
    for name, gradient in naive.gradient(model, ours).items():
        difference = (gradient - theirs_gradient[name]).norm() / theirs_gradient[name].norm()
        assert float(difference) < 1e-4, f"{name}: relative difference {difference:.2g}"
