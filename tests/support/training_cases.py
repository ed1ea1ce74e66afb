"""Examples and a trainer for the tests of training."""

from dataclasses import replace

import naive
import torch
from tiny_decoders import tiny_examples

from realignment.objective.hybrid import Objective, Treatment
from realignment.parameters import LoraParameters, TrainingParameters
from realignment.training.run import training_arguments
from realignment.training.trainer import RealignTrainer

PREFER, CORRECT, SUPPRESS, KEEP, AFFIRM, IMITATE = Treatment
MIXED = [PREFER, KEEP, CORRECT, AFFIRM, SUPPRESS, PREFER, KEEP, AFFIRM, CORRECT, PREFER]
WEIGHTS = [1.5, 1.0, 0.25, 0.5, 2.0, 0.0, 1.0, 1.5, 1.75, 0.5]
OBJECTIVE = Objective(beta=0.3, punish_weight=0.5, kl_weight=0.7, retain_weight=0.6, anchor_weight=0.1)
LORA = LoraParameters(rank=3, alpha=6, target_modules=("q_proj", "v_proj", "down_proj"))


def examples_of(model, treatments=MIXED, weights=WEIGHTS):
    """Examples with the model's log-probabilities as reference; of retained pairs the trainer takes them."""
    examples = []
    for example in tiny_examples(treatments, seed=4, weights=weights):
        with torch.no_grad():
            reference = tuple(float(value) for value in naive.log_probabilities(model, example.tokens))
        examples.append(replace(example, reference=reference) if example.treatment.is_conflict else example)
    return examples


def settings(**options):
    return TrainingParameters(
        **(
            {"lora": None, "max_kl": 1.0, "learning_rate": 1e-2, "batch_size": 5, "warmup_share": 0.0}
            | options
        )
    )


def arguments(folder, *, steps=2, seed=0, **options):
    return training_arguments(folder, steps=steps, device="cpu", settings=settings(**options), seed=seed)


def open_trainer(model, folder, *, objective=OBJECTIVE, reference_model=None):
    return RealignTrainer(
        model=model,
        args=arguments(folder),
        train_dataset=[],
        objective=objective,
        reference_model=reference_model,
    )
