"""General ability by lm-evaluation-harness, on local multiple-choice questions or on tasks it knows."""

import logging
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from realignment.model.loading import load_configured_model
from realignment.parameters import CapabilityParameters
from realignment.parameters.base import ModelParameters
from realignment.records import DataError


def local_task(name: str, questions: Path) -> dict[str, Any]:
    """Build a harness task over a JSON Lines file with question, choices and answer (index of the right one).

    Args:
        name: Name of the task in reports.
        questions: The file.

    Returns:
        The task's configuration: accuracy on multiple-choice questions.

    Raises:
        DataError: There is no such file.
    """
    if not questions.is_file():
        raise DataError(
            f"No capability questions at {questions}: expected JSON Lines with question, choices, answer. "
            "Set `evaluation.capability.questions` to such a file, or to null to leave the check out."
        )
    return {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(questions)}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "Question: {{question}}\nAnswer:",
        "doc_to_choice": "choices",
        "doc_to_target": "answer",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }


def measure_accuracy(
    model: Any, tokenizer: Any, tasks: Sequence[str | dict[str, Any]], *, batch_size: int, limit: int | None
) -> dict[str, np.ndarray]:
    """Measure accuracy per question, in a fixed order, so that two models can be compared by question.

    Args:
        model: A causal language model.
        tokenizer: The model's tokenizer.
        tasks: Names the harness knows, or task dicts such as `local_task`.
        batch_size: Sequences at a time.
        limit: At most so many questions a task; None: all.

    Returns:
        Task → accuracy (0 or 1) of each of its Q questions, shape (Q,).
    """
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    wrapped_model = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size, backend="causal")
    result = simple_evaluate(
        model=wrapped_model,
        tasks=list(tasks),
        task_manager=_task_index(named=any(isinstance(task, str) for task in tasks)),
        limit=limit,
        log_samples=True,
        bootstrap_iters=0,  # intervals come from the paired test over questions, not from the harness
        random_seed=0,
        numpy_random_seed=0,
        torch_random_seed=0,
        fewshot_random_seed=0,
    )
    return {name: _accuracies(name, samples) for name, samples in result["samples"].items()}


@cache
def _task_index(*, named: bool) -> Any:
    """Index the harness's own tasks by name, which takes 13 s or more; local tasks do not need it."""
    from lm_eval.tasks import TaskManager

    return TaskManager(include_defaults=named)


def _accuracies(task: str, samples: list[dict[str, Any]]) -> np.ndarray:
    # A task may read an answer in several ways ("filters"), each a sample of its own; the first one counts.
    first_filter = samples[0].get("filter")
    answers = [sample for sample in samples if sample.get("filter") == first_filter]
    metric = next((name for name in ("acc", "exact_match") if name in answers[0]), None)
    if metric is None:
        raise DataError(
            f"The task {task!r} reports neither acc nor exact_match; "
            f"found {', '.join(answers[0].get('metrics', ())) or 'nothing'}. Remove it from "
            "`evaluation.capability.tasks`."
        )
    # By question number: the harness returns samples in the order in which it batched them.
    answers.sort(key=lambda sample: sample["doc_id"])
    return np.array([float(sample[metric]) for sample in answers])


def compare_models(
    models: Mapping[str, str], model_parameters: ModelParameters, parameters: CapabilityParameters
) -> pd.DataFrame:
    """Measure the accuracy of each model on every question.

    Args:
        models: Column name → folder of the model.
        model_parameters: How the models are loaded.
        parameters: Questions, tasks, batch size and limit.

    Returns:
        task, question (number), and one 0/1 column per model; empty where there are no tasks.
    """
    tasks: list[str | dict[str, Any]] = list(parameters.tasks)
    if parameters.questions is not None:
        tasks.insert(0, local_task("questions", Path(parameters.questions).resolve()))
    table = pd.DataFrame(columns=["task", "question", *models])
    if not tasks:
        return table
    columns: dict[str, list[float]] = {}
    for side, path in models.items():
        model, tokenizer = load_configured_model(path, model_parameters)
        results = measure_accuracy(
            model, tokenizer, tasks, batch_size=parameters.batch_size, limit=parameters.limit
        )
        columns[side] = np.concatenate(list(results.values())).tolist()
    # Both models answer the same questions in the same order, so the last model's results name the rows.
    questions = [
        pd.DataFrame({"task": task, "question": range(len(accuracies))})
        for task, accuracies in results.items()
    ]
    return pd.concat(questions, ignore_index=True).assign(**columns)
