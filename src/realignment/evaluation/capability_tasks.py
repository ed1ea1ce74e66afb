"""Tasks of general ability: local files as tasks of lm-evaluation-harness, and the names that it knows."""

import difflib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from functools import cache, partial
from pathlib import Path
from string import ascii_uppercase
from typing import Any

import pandas as pd

from realignment.intake.readers import read_table
from realignment.parameters import CapabilityFile, CapabilityParameters
from realignment.records import DataError

_NUMBER = re.compile(r"-?\$?\d[\d,]*(?:\.\d+)?")


def local_task(name: str, file: CapabilityFile, *, max_new_tokens: int = 256) -> dict[str, Any]:
    """Build a harness task over a local table of questions.

    Args:
        name: Name of the task in reports.
        file: The table and how it is asked.
        max_new_tokens: Tokens after which a written solution is cut.

    Returns:
        The task's configuration.

    Raises:
        DataError: There is no such file, or a row is not a question.
    """
    table = _read_questions(name, file.path)
    form = file.form or ("answer" if "choices" in table else "generate")
    ask = _generative_row if form == "generate" else partial(_choice_row, form, file.chat_template)
    rows = [ask(row, f"{file.path}, row {number}") for number, row in _rows(table)]
    if len(rows) <= file.shots:
        raise DataError(
            f"{file.path} has {len(rows)} questions, and `shots` takes {file.shots} of them as examples; "
            f"expected more questions than examples. Lower `shots` of the task {name!r}."
        )
    kind = _generative_settings(max_new_tokens) if form == "generate" else _choice_settings()
    return kind | {
        "task": name,
        "custom_dataset": partial(_as_dataset, rows, file.shots),
        "test_split": "test",
        "fewshot_split": "examples" if file.shots else None,
        "fewshot_config": {"sampler": "first_n"},
        "num_fewshot": file.shots,
        "doc_to_text": "text",
    }


def _read_questions(name: str, path: str) -> pd.DataFrame:
    if not Path(path).is_file():
        where = "questions" if name == "questions" else f"files.{name}"
        raise DataError(
            f"No capability questions at {path}: expected JSON Lines with question, choices, answer. "
            f"Set `evaluation.capability.{where}` to such a file, or to null to leave the check out."
        )
    table = read_table(path)
    missing = [column for column in ("question", "answer") if column not in table]
    if missing:
        raise DataError(
            f"{path} has no column {missing[0]!r}; found {', '.join(map(str, table.columns))}. Expected "
            "question and answer, and choices where the answer is the index of one."
        )
    return table


def _rows(table: pd.DataFrame) -> Iterator[tuple[Any, dict[str, Any]]]:
    for number, row in zip(table.index, table.to_dict("records"), strict=True):
        yield number, {str(column): value for column, value in row.items()}


def _choice_row(form: str, chat_template: bool, row: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A multiple-choice question as the harness reads it: text, options, and the index of the right one."""
    choices = row.get("choices")
    if not isinstance(choices, Sequence) or isinstance(choices, str) or len(choices) < 2:
        raise DataError(f"{where}: expected at least two `choices`, found {choices!r}.")
    answer = row["answer"]
    if not isinstance(answer, int) or isinstance(answer, bool) or not 0 <= answer < len(choices):
        raise DataError(
            f"{where}: expected as `answer` the index of the right choice, 0 to {len(choices) - 1}, found "
            f"{answer!r}."
        )
    options = [str(choice) for choice in choices]
    if form == "continuation":
        return {"text": str(row["question"]), "options": options, "answer": answer}
    letters = list(ascii_uppercase[: len(options)])
    listed = "".join(f"\n{letter}. {option}" for letter, option in zip(letters, options, strict=True))
    question = f"{row['question']}{listed}" if form == "letters" else str(row["question"])
    # In a chat the turn itself says where the answer begins.
    text = question if chat_template else f"Question: {question}\nAnswer:"
    return {"text": text, "options": letters if form == "letters" else options, "answer": answer}


def _generative_row(row: Mapping[str, Any], where: str) -> dict[str, Any]:
    if not str(row["answer"] or "").strip():
        raise DataError(f"{where}: expected an `answer`, found none.")
    return {"text": f"Question: {row['question']}\nAnswer:", "answer": str(row["answer"])}


def _choice_settings() -> dict[str, Any]:
    return {
        "output_type": "multiple_choice",
        "doc_to_choice": "options",
        "doc_to_target": "answer",
        "metric_list": [
            {"metric": name, "aggregation": "mean", "higher_is_better": True} for name in ("acc", "acc_norm")
        ],
    }


def _generative_settings(max_new_tokens: int) -> dict[str, Any]:
    return {
        "output_type": "generate_until",
        "doc_to_target": "answer",
        "process_results": score_solution,
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
        "generation_kwargs": {"until": ["Question:"], "do_sample": False, "max_gen_toks": max_new_tokens},
    }


def _as_dataset(rows: list[dict[str, Any]], shots: int, **_: Any) -> dict[str, Any]:
    """The splits that the harness reads; it passes the task's metadata, of which nothing is needed here."""
    from datasets import Dataset

    splits = {"test": Dataset.from_list(rows[shots:])}
    return splits | ({"examples": Dataset.from_list(rows[:shots])} if shots else {})


def score_solution(document: Mapping[str, Any], replies: Sequence[str]) -> dict[str, float]:
    """Compare the final number of a written solution with that of the answer, as GSM8K is scored.

    The answer's number stands after ``####`` where it has that mark (Cobbe et al. 2021, arXiv:2110.14168).
    Where the answer has no number, the whole texts are compared, without case, space and final full stop.

    Args:
        document: The question's row, with `answer`.
        replies: The model's reply, alone in a list.

    Returns:
        exact_match: 1 where they are equal, else 0.
    """
    reply, answer = replies[0], str(document["answer"])
    expected = final_number(answer.rpartition("####")[2])
    if expected is None:
        return {"exact_match": float(_plain(reply) == _plain(answer))}
    # A reply that went the way of solved examples says its result after the mark, and may go on after it.
    _, mark, result = reply.partition("####")
    found = final_number(result.strip().partition("\n")[0]) if mark else final_number(reply)
    return {"exact_match": float(found == expected)}


def final_number(text: str) -> Decimal | None:
    """Return the last number of a text, without separators of thousands and currency; None: there is none.

    Example:
        >>> final_number("So 3 boxes cost $1,250.00.") == 1250
        True
    """
    numbers = _NUMBER.findall(text)
    return Decimal(numbers[-1].replace(",", "").replace("$", "")) if numbers else None


def _plain(text: str) -> str:
    return " ".join(text.casefold().split()).removesuffix(".")


@cache
def task_index(*, named: bool) -> Any:
    """Index the harness's own tasks by name, which takes 13 s or more; local tasks do not need it.

    Args:
        named: Whether the harness's own tasks are indexed.

    Returns:
        Its `TaskManager`.
    """
    from lm_eval.tasks import TaskManager

    return TaskManager(include_defaults=named)


def check_tasks(names: Sequence[str], known: Callable[[], Sequence[str]] | None = None) -> None:
    """Make sure that lm-evaluation-harness knows the tasks.

    Args:
        names: Tasks, groups or tags.
        known: Returns the names that there are; None: those of the installed harness.

    Raises:
        DataError: A name is unknown; the message lists near ones.
    """
    if not names:
        return
    there_are = list(known() if known else task_index(named=True).all_tasks)
    for name in names:
        if name not in there_are:
            near = difflib.get_close_matches(name, there_are, n=5, cutoff=0.5)
            hint = f"near names: {', '.join(near)}" if near else "no name is near"
            raise DataError(
                f"lm-evaluation-harness knows no task {name!r}; {hint}. Correct "
                "`evaluation.capability.tasks`, or give a local file under `evaluation.capability.files`."
            )


def prepare_tasks(parameters: CapabilityParameters) -> dict[str, str | dict[str, Any]]:
    """Check every task and read its questions, before any model is loaded.

    Args:
        parameters: Files and names of tasks.

    Returns:
        Task → what the harness is asked for: its name, or the configuration of a local task.

    Raises:
        DataError: A file is missing or has a row that is no question, a task is unknown, or the questions of
            a task cannot be fetched.
    """
    tasks: dict[str, str | dict[str, Any]] = {
        name: local_task(name, file, max_new_tokens=parameters.max_new_tokens)
        for name, file in parameters.local_files().items()
    }
    check_tasks(parameters.tasks)
    for name in parameters.tasks:
        _fetch(name)
        tasks[name] = name
    return tasks


def _fetch(name: str) -> None:
    """Fetch the questions of a named task into the cache of `datasets`."""
    try:
        task_index(named=True).load([name])
    except Exception as error:  # the harness, `datasets` and the Hub's client each raise errors of their own
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise DataError(
            f"The questions of the task {name!r} could not be fetched: {reason}. Expected access to the "
            "Hugging Face Hub (and, for a gated data set such as GPQA's, a login that may read it), or give "
            "the questions as a local file under `evaluation.capability.files`."
        ) from error
