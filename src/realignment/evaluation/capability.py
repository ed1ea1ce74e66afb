"""General ability by lm-evaluation-harness, on local multiple-choice questions or on tasks it knows."""

import logging
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from realignment.model.loading import load_configured
from realignment.parameters import CapabilityParameters
from realignment.parameters.base import ModelParameters
from realignment.records import DataError


def local_task(name: str, questions: Path) -> dict[str, Any]:
    """A harness task over a JSON Lines file with question, choices and answer (index of the right choice).

    Args:
        name: Of the task in reports.
        questions: The file.

    Raises:
        DataError: No such file.
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


def measure(
    model: Any, tokenizer: Any, tasks: Sequence[str | dict[str, Any]], *, batch_size: int, limit: int | None
) -> dict[str, np.ndarray]:
    """Accuracy per question, in a fixed order, so that two models can be compared question by question.

    Args:
        model: A causal language model.
        tokenizer: Its own.
        tasks: Names the harness knows, or task dicts such as `local_task`.
        batch_size: Sequences at a time.
        limit: At most so many questions a task; None: all.

    Returns:
        Task → 0/1 per question.
    """
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    harness = logging.getLogger("lm_eval")
    harness.setLevel(logging.ERROR)
    wrapped = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size, backend="causal")
    result = simple_evaluate(
        model=wrapped,
        tasks=list(tasks),
        task_manager=_task_index(named=any(isinstance(task, str) for task in tasks)),
        limit=limit,
        log_samples=True,
        bootstrap_iters=0,
        random_seed=0,
        numpy_random_seed=0,
        torch_random_seed=0,
        fewshot_random_seed=0,
    )
    return {name: _accuracies(name, samples) for name, samples in result["samples"].items()}


@cache
def _task_index(*, named: bool) -> Any:
    """The harness's tasks by name. Reading all of them takes 13 s or more; local tasks need none."""
    from lm_eval.tasks import TaskManager

    return TaskManager(include_defaults=named)


def _accuracies(task: str, samples: list[dict[str, Any]]) -> np.ndarray:
    # A task may read an answer in several ways ("filters"), each a sample of its own; the first counts.
    mine = [sample for sample in samples if sample.get("filter") == samples[0].get("filter")]
    metric = next((m for m in ("acc", "exact_match") if m in mine[0]), None)
    if metric is None:
        raise DataError(
            f"The task {task!r} reports neither acc nor exact_match; "
            f"found {', '.join(mine[0].get('metrics', ())) or 'nothing'}. Take it out of "
            "`evaluation.capability.tasks`."
        )
    return np.array([float(s[metric]) for s in sorted(mine, key=lambda sample: sample["doc_id"])])


def compare_models(
    models: Mapping[str, str], model_parameters: ModelParameters, parameters: CapabilityParameters
) -> pd.DataFrame:
    """Accuracy per question of each model (column name → path).

    Returns:
        task, question (number), and one 0/1 column per model; empty where nothing is asked for.
    """
    tasks: list[str | dict[str, Any]] = list(parameters.tasks)
    if parameters.questions is not None:
        tasks.insert(0, local_task("questions", Path(parameters.questions).resolve()))
    table = pd.DataFrame(columns=["task", "question", *models])
    if not tasks:
        return table
    columns: dict[str, list[float]] = {}
    for side, path in models.items():
        model, tokenizer = load_configured(path, model_parameters)
        results = measure(model, tokenizer, tasks, batch_size=parameters.batch_size, limit=parameters.limit)
        keys = [(task, number) for task, values in results.items() for number in range(len(values))]
        columns[side] = [float(value) for values in results.values() for value in values]
    return pd.DataFrame(keys, columns=["task", "question"]).assign(**columns)
