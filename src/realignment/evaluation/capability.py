"""General ability by lm-evaluation-harness, task by task, on local questions or on tasks that it knows."""

import logging
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from realignment.evaluation.capability_tasks import prepare_tasks, task_index
from realignment.evaluation.measures import metric_row
from realignment.evaluation.perplexity import TEXT, read_documents, score_documents, text_rows
from realignment.model.loading import load_configured_model
from realignment.parameters import CapabilityParameters
from realignment.parameters.base import ModelParameters
from realignment.records import DataError
from realignment.statistics import compare_means, compare_proportions

METRICS = ("acc_norm", "acc", "mc2", "exact_match", "prompt_level_strict_acc")
"""Which metric of a task counts, first choice first: length-normalised accuracy where the task reports it."""

COLUMNS = ("task", "metric", "question", "before", "after", "bytes", "before_tokens", "after_tokens")
"""Columns of `capability_scores`."""


def check_inputs(parameters: CapabilityParameters) -> None:
    """Read every question and document, to find what is wrong with them before the long work.

    Args:
        parameters: Files, names of tasks, and the text.

    Raises:
        DataError: See `prepare_tasks` and `read_documents`.
    """
    prepare_tasks(parameters)
    if parameters.text is not None:
        read_documents(parameters.text)


def compare_models(
    models: Mapping[str, str], model_parameters: ModelParameters, parameters: CapabilityParameters
) -> pd.DataFrame:
    """Score each model on every question, and on every document of the text.

    Args:
        models: "before" and "after" → folder of the model.
        model_parameters: How the models are loaded.
        parameters: Questions, tasks, text, batch size and limit.

    Returns:
        `COLUMNS`: for a question its score (0 to 1) by each model; for a document of the text the
        log-likelihood in nats, its length in bytes, and in tokens of each model's tokenizer.

    Raises:
        DataError: See `prepare_tasks` and `read_documents`; a task reports no metric that counts.
    """
    scores = {side: score_model(path, model_parameters, parameters) for side, path in models.items()}
    if all(part.empty for part in scores.values()):
        return pd.DataFrame(columns=list(COLUMNS))
    return _join_sides(scores)


def score_model(
    path: str, model_parameters: ModelParameters, parameters: CapabilityParameters
) -> pd.DataFrame:
    """Score one model on every question, and on every document of the text.

    Args:
        path: Folder of the model; without a task or a text it is not loaded.
        model_parameters: How it is loaded.
        parameters: Questions, tasks, text, batch size and limit.

    Returns:
        task, metric, question, score, bytes, tokens; see `compare_models`.

    Raises:
        DataError: See `compare_models`.
    """
    tasks = prepare_tasks(parameters)
    documents = [] if parameters.text is None else read_documents(parameters.text)
    if not tasks and not documents:
        return pd.DataFrame(columns=["task", "metric", "question", "score", "bytes", "tokens"])
    model, tokenizer = load_configured_model(path, model_parameters)
    parts = [_score_task(model, tokenizer, name, task, parameters) for name, task in tasks.items()]
    if documents:
        parts.append(score_documents(model, tokenizer, documents, parameters))
    return pd.concat(parts, ignore_index=True)


def _join_sides(scores: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Both models answer the same questions in the same order, so each model adds its columns to the rows."""
    table = next(iter(scores.values()))[["task", "metric", "question", "bytes"]].copy()
    for side, part in scores.items():
        table[side] = part["score"]
        table[f"{side}_tokens"] = part["tokens"]
    return table[list(COLUMNS)]


def _score_task(
    model: Any, tokenizer: Any, name: str, task: str | dict[str, Any], parameters: CapabilityParameters
) -> pd.DataFrame:
    file = parameters.local_files().get(name)
    scores, metric = measure_task(
        model,
        tokenizer,
        task,
        metric=file.metric if file is not None else parameters.metrics.get(name),
        chat_template=file.chat_template if file is not None else parameters.chat_template,
        batch_size=parameters.batch_size,
        limit=(None if file is None else file.limit) or parameters.limit,
    )
    rows = {"task": name, "metric": metric, "question": range(len(scores)), "score": scores}
    return pd.DataFrame(rows).assign(bytes=np.nan, tokens=np.nan)


def measure_task(
    model: Any,
    tokenizer: Any,
    task: str | dict[str, Any],
    *,
    metric: str | None = None,
    chat_template: bool = False,
    batch_size: int,
    limit: int | None = None,
) -> tuple[np.ndarray, str]:
    """Score every question of a task, in a fixed order, so that two models can be compared by question.

    Args:
        model: A causal language model.
        tokenizer: The model's tokenizer.
        task: A name that the harness knows, or a configuration from `capability_tasks.local_task`.
        metric: Which metric counts; None: the first of `METRICS` that the task reports.
        chat_template: Whether questions are asked in the chat template.
        batch_size: Sequences at a time.
        limit: At most so many questions; of each part of a group such as mmlu; None: all.

    Returns:
        The score (0 to 1) of each of its Q questions, shape (Q,), and the name of the metric. The parts of a
        group follow each other by name.

    Raises:
        DataError: The task does not report the metric.
    """
    samples = harness_samples(
        model, tokenizer, task, chat_template=chat_template, batch_size=batch_size, limit=limit
    )
    parts = [question_scores(name, samples[name], metric) for name in sorted(samples)]
    return np.concatenate([scores for scores, _ in parts]), parts[0][1]


def harness_samples(
    model: Any,
    tokenizer: Any,
    task: str | dict[str, Any],
    *,
    chat_template: bool,
    batch_size: int,
    limit: int | None,
) -> dict[str, list[dict[str, Any]]]:
    """Let lm-evaluation-harness ask a task, and return what it logged of each question.

    Args:
        model: A causal language model.
        tokenizer: The model's tokenizer.
        task: See `measure_task`.
        chat_template: See `measure_task`.
        batch_size: Sequences at a time.
        limit: See `measure_task`.

    Returns:
        Task, or part of a group → its samples: doc_id, filter, the metrics, and the log-likelihoods of
        choices (`filtered_resps`).
    """
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    result = simple_evaluate(
        model=HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size, backend="causal"),
        tasks=[task],
        task_manager=task_index(named=isinstance(task, str)),
        limit=limit,
        apply_chat_template=chat_template,
        log_samples=True,
        bootstrap_iters=0,  # intervals come from the paired test over questions, not from the harness
        random_seed=0,
        numpy_random_seed=0,
        torch_random_seed=0,
        fewshot_random_seed=0,
    )
    return dict(result["samples"])


def question_scores(
    task: str, samples: list[dict[str, Any]], metric: str | None = None
) -> tuple[np.ndarray, str]:
    """Read the scores of a task's questions from what the harness logged.

    Args:
        task: Its name, for messages.
        samples: From `harness_samples`.
        metric: Which metric counts; None: the first of `METRICS` that there is.

    Returns:
        Scores by question number, shape (Q,), and the metric.

    Raises:
        DataError: The task does not report the metric, or its values are no shares.
    """
    # A task may read an answer in several ways ("filters"), each a sample of its own; the first one counts.
    first_filter = samples[0].get("filter")
    answers = [sample for sample in samples if sample.get("filter") == first_filter]
    reported = list(answers[0].get("metrics", ()))
    wanted = METRICS if metric is None else (metric,)
    chosen = next((name for name in wanted if name in answers[0]), None)
    if chosen is None:
        raise DataError(
            f"The task {task!r} reports {', '.join(reported) or 'no metric'}; expected one of "
            f"{', '.join(wanted)}. Name one that it reports in `evaluation.capability.metrics` (`metric` of "
            "a file), or remove the task."
        )
    # By question number: the harness returns samples in the order in which it batched them.
    answers.sort(key=lambda sample: sample["doc_id"])
    scores = pd.to_numeric(pd.Series([sample[chosen] for sample in answers]), errors="coerce")
    if not scores.between(0, 1).all():
        raise DataError(
            f"The metric {chosen!r} of the task {task!r} is not a number from 0 to 1 for each question, so "
            f"models cannot be compared by it; the task reports {', '.join(reported)}. Name another one in "
            "`evaluation.capability.metrics`."
        )
    return scores.to_numpy(float), chosen


def tabulate_capability(scores: pd.DataFrame, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    """Compare the models on each task, and on the text.

    Tasks are never pooled: a loss on one would vanish beside a longer, unchanged one.

    Args:
        scores: From `compare_models`.
        rng: Source of the bootstrap intervals, of scores between 0 and 1 and of the text.

    Yields:
        Rows of the evaluation table: `capability` of group "task:…", and those of `perplexity.text_rows`.
    """
    if scores.empty:
        return
    is_text = scores["task"] == TEXT
    for task, part in scores[~is_text].groupby("task"):
        before, after = part["before"].to_numpy(float), part["after"].to_numpy(float)
        if np.isin([before, after], (0, 1)).all():
            comparison = compare_proportions(before.astype(bool), after.astype(bool))
        else:  # such as the probability of the true answers, TruthfulQA's mc2
            comparison = compare_means(before, after, rng)
        yield metric_row("capability", f"task:{task}", comparison, unit="share")
    if is_text.any():
        yield from text_rows(scores[is_text], rng)
