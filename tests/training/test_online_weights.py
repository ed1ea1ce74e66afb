import copy
from dataclasses import replace

import naive
import pytest
import torch
from tiny_decoders import move, tiny_examples, tiny_model, with_lora
from training_cases import LORA, OBJECTIVE, examples_of, open_trainer

from realignment.likelihood.backbone import autocast
from realignment.likelihood.packing import Layout
from realignment.model.adapters import make_trainable
from realignment.objective.hybrid import Objective, Treatment
from realignment.training.collation import Collator
from realignment.training.online_weights import OnlineWeights

PREFER, CORRECT, SUPPRESS, KEEP, AFFIRM, IMITATE = Treatment
GOLD = tiny_examples([PREFER] * 4, seed=8)
MODELS = {
    "moved LoRA": lambda: with_lora(tiny_model(), moved=True),
    "LoRA on GPT-2": lambda: with_lora(tiny_model("gpt2"), moved=True, targets=["c_attn", "c_fc"]),
    "all of Llama, tied head": lambda: move(tiny_model(), scale=0.02),
    "all of Llama": lambda: move(tiny_model("llama"), scale=0.02),
    "all of Qwen2, with biases": lambda: move(tiny_model("qwen2"), scale=0.02),
    "all of GPT-2": lambda: move(tiny_model("gpt2"), scale=0.02),
    "all of Qwen3": lambda: move(tiny_model("qwen3"), scale=0.02),
    "all of Gemma 2": lambda: move(tiny_model("gemma2"), scale=0.02),
    "all of Gemma 3": lambda: move(tiny_model("gemma3"), scale=0.02),
    "all of Mistral, windowed": lambda: move(tiny_model("mistral_window"), scale=0.02),
    "all of Phi-3": lambda: move(tiny_model("phi3"), scale=0.02),
}
REFERENCES = {
    "LoRA on GPT-2": "gpt2",
    "all of GPT-2": "gpt2",
    "all of Llama": "llama",
    "all of Qwen2, with biases": "qwen2",
    "all of Qwen3": "qwen3",
    "all of Gemma 2": "gemma2",
    "all of Gemma 3": "gemma3",
    "all of Mistral, windowed": "mistral_window",
    "all of Phi-3": "phi3",
}


def reference_of(name):
    return tiny_model(REFERENCES.get(name, "llama_tied")).requires_grad_(False)


def make_online_weights(reference, *, every=1, length_normalize=False):
    """Gold in two batches, with the references of the untouched model."""
    rows = [Layout(0)([e.tokens for e in part]) for part in (GOLD[:1], GOLD[1:])]
    with torch.no_grad():
        references = [
            torch.stack([v for e in part for v in naive.log_probabilities(reference, e.tokens)])
            for part in (GOLD[:1], GOLD[1:])
        ]
    return OnlineWeights(rows, references, OBJECTIVE.beta, every, length_normalize)


def naive_weights(model, reference, examples, *, length_normalize=False):
    """One backward per pair at the present θ, clamped, mean one per treatment."""
    dpo = Objective(beta=OBJECTIVE.beta)

    def losses(examples, objective):
        with torch.no_grad():
            base = [naive.log_probabilities(reference, e.tokens) for e in examples]
        return [naive.example_loss(model, e, objective, r) for e, r in zip(examples, base, strict=True)]

    direction = naive.gradient(model, sum(losses(GOLD, dpo)) / len(GOLD))
    scores = {}
    for index, (example, loss) in enumerate(zip(examples, losses(examples, OBJECTIVE), strict=True)):
        if example.treatment.is_conflict:
            gradient = naive.gradient(model, loss)
            score = float(sum((gradient[name] * direction[name]).sum() for name in direction))
            length = sum(map(len, example.tokens.responses)) if length_normalize else 1
            scores[index] = max(score / length, 0.0)
    weights = [1.0] * len(examples)
    for treatment in Treatment:
        members = [i for i in scores if examples[i].treatment == treatment]
        mean = sum(scores[i] for i in members) / max(len(members), 1)
        for i in members:
            weights[i] = scores[i] / mean if mean else 0.0
    return weights


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("length_normalize", [False, True])
def test_an_online_weights_step_has_the_loss_and_gradients_of_one_backward_per_pair(
    tmp_path, name, length_normalize
):
    model, reference = MODELS[name](), reference_of(name)
    examples = examples_of(reference, weights=[1.0] * 10)
    weights = naive_weights(model, reference, examples, length_normalize=length_normalize)
    assert 0 < sum(w == 0 for w in weights) < 6, "some conflicts should be dropped, not all"
    weighted = [replace(e, weight=w) for e, w in zip(examples, weights, strict=True)]
    twin, _ = naive.batch_loss(model, reference, weighted, OBJECTIVE)
    expected = naive.gradient(model, twin)
    trainer = open_trainer(model, tmp_path, reference_model=None if "LoRA" in name else reference)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    trainer._online_weights = make_online_weights(reference, length_normalize=length_normalize)
    loss = trainer.training_step(model, Collator(Layout(0))(examples))
    assert float(loss) == pytest.approx(float(twin.detach()), rel=1e-6)
    gradients = {
        key: torch.zeros_like(p) if p.grad is None else p.grad
        for key, p in model.named_parameters()
        if p.requires_grad
    }
    torch.testing.assert_close(gradients, expected, rtol=1e-4, atol=1e-6)


def test_gradient_checkpointing_changes_no_gradient_of_an_online_weights_step(tmp_path):
    results = []
    for checkpointing in (False, True):
        model = with_lora(tiny_model(), moved=True)
        if checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
            model.enable_input_require_grads()
        trainer = open_trainer(model, tmp_path)
        trainer._online_weights = make_online_weights(tiny_model())
        trainer.training_step(model, Collator(Layout(0))(examples_of(tiny_model())))
        results.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("adapters", [True, False])
@pytest.mark.parametrize("checkpointing", [True, False])
def test_under_autocast_online_weights_gradients_are_those_of_full_precision_but_for_rounding(
    tmp_path, adapters, checkpointing
):
    gradients = []
    for rounds in (False, True):
        model, reference = (tiny_model(dtype=torch.float32) for _ in range(2))
        if rounds:
            autocast(model)
            autocast(reference)
        model = with_lora(model, moved=True) if adapters else move(model, scale=0.02)
        if checkpointing and rounds:
            model.activation_checkpointing_enable({"use_reentrant": False})
        trainer = open_trainer(
            model, tmp_path, reference_model=None if adapters else reference.requires_grad_(False)
        )
        trainer._online_weights = make_online_weights(tiny_model(dtype=torch.float32))
        untouched = tiny_model(dtype=torch.float32)
        trainer.training_step(model, Collator(Layout(0), fixed_weights=False)(examples_of(untouched)))
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    error = float((gradients[1] - gradients[0]).norm() / gradients[0].norm())
    assert 0 < error < 0.1


def test_the_gold_gradient_is_renewed_when_it_is_due_and_not_before():
    model, online = with_lora(tiny_model(), moved=True), make_online_weights(tiny_model(), every=3)
    online.renew_gold_gradient(model, 0)
    first = copy.copy(online.direction)
    move(model, seed=5)
    for step in (1, 2):
        online.renew_gold_gradient(model, step)
        assert online.direction == first
    online.renew_gold_gradient(model, 3)
    assert any(not torch.equal(online.direction[name], first[name]) for name in first)


def test_weights_have_mean_one_over_the_batches_and_negative_scores_none():
    online, generator = make_online_weights(tiny_model()), torch.Generator().manual_seed(0)
    kinds = torch.tensor([int(t) for t in (PREFER, PREFER, SUPPRESS, CORRECT, KEEP, AFFIRM)])
    scale = torch.tensor([1.0, 1.0, 500.0, 30.0, 1.0, 1.0])
    batches = []
    for _ in range(400):
        scores = torch.randn(6, generator=generator) * scale
        weights = online.normalize(scores, kinds)
        assert (weights[:4] >= 0).all()
        assert not weights[:4][scores[:4] <= 0].any()
        assert weights[4:].tolist() == [1.0, 1.0]
        batches.append(weights)
    means = torch.stack(batches)[100:].mean(0)
    assert float(means[:2].mean()) == pytest.approx(1, abs=0.1)
    assert means[2:4].tolist() == pytest.approx([1, 1], abs=0.2)


def test_a_batch_of_negative_scores_alone_has_weight_zero():
    online = make_online_weights(tiny_model())
    kinds = torch.tensor([int(PREFER), int(PREFER)])
    assert online.normalize(torch.tensor([-1.0, -2.0]), kinds).tolist() == [0.0, 0.0]


def test_state_that_is_saved_is_the_state_that_is_loaded(tmp_path):
    model, online = (
        make_trainable(tiny_model(dtype=torch.float32), LORA, seed=0),
        make_online_weights(tiny_model()),
    )
    online.renew_gold_gradient(model, 4)
    online.normalize(torch.tensor([1.0, 3.0]), torch.tensor([int(PREFER), int(SUPPRESS)]))
    online.save(tmp_path)
    other = make_online_weights(tiny_model())
    other.load(tmp_path, "cpu")
    assert other.renewed_at == 4
    assert torch.equal(other.sums, online.sums)
    torch.testing.assert_close(other.direction, online.direction)
