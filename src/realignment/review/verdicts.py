"""Read and check the verdicts that people hand back; every mistake is named by file and row."""

from collections.abc import Collection, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import pandas as pd

from realignment.intake.flags import VERDICT_WORDS
from realignment.intake.readers import SUFFIXES, read_table
from realignment.policy import Policy
from realignment.records import DataError
from realignment.review.spreadsheets import unescape_formula

VERDICTS = tuple(VERDICT_WORDS)
VERDICT_COLUMNS = (
    "task_id", "prompt", "response", "domain", "policy", "policy_digest", "complies", "rules_broken",
    "reason", "annotator",
)  # fmt: skip
RAW_COLUMNS = (
    "file", "row", "task_id", "verdict", "rules_broken", "reason", "annotator", "prompt", "response",
    "response_a", "response_b", "policy", "policy_digest",
)  # fmt: skip
TEXTS = ("prompt", "response", "response_a", "response_b")
"""Texts that a form gives back; one with two answers to compare has response_a and response_b."""
RETURNED = ("task_id", *TEXTS, "policy", "policy_digest")
"""Fields that a form gives back unchanged."""

_LISTED = 10


class VerdictError(DataError):
    """Verdicts that cannot be used as they are; the message names every file and row, up to ten."""


def read_verdicts(source: str) -> pd.DataFrame:
    """Read a file, or every file in a folder: our own forms, or exports of Label Studio or Argilla.

    Args:
        source: CSV, JSON Lines, JSON or Parquet; or a folder of such files, one per annotator for example.

    Returns:
        `RAW_COLUMNS`; a field that a form lacks is null. The annotator is the file's name where no column
        names one.

    Raises:
        DataError: There is no such file.
        VerdictError: A folder holds no file, or a file has the columns of none of these formats.
    """
    path = Path(source)
    files = [path]
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.name.endswith(SUFFIXES))
    if not files:
        raise VerdictError(f"The folder {path} holds no file that ends in {', '.join(SUFFIXES)}.")
    rows = list(chain.from_iterable(map(_read_file, files)))
    return pd.DataFrame(rows, columns=list(RAW_COLUMNS), dtype=object)


def _read_file(file: Path) -> Iterator[dict[str, Any]]:
    table = read_table(str(file))
    columns = set(map(str, table.columns))
    if {"data", "annotations"} <= columns:
        read_answers = _read_label_studio
    elif {"fields", "responses"} <= columns:
        read_answers = _read_argilla
    elif {"task_id", "verdict"} <= columns:
        read_answers = _read_flat
    else:
        raise VerdictError(
            f"{file} has columns {', '.join(sorted(columns))}; expected task_id and verdict (our own "
            "forms, or Label Studio's JSON-MIN and CSV), data and annotations (Label Studio's JSON), or "
            "fields and responses (Argilla). Was the form exported, and were its columns kept?"
        )
    for number, cells in zip(table.index, table.to_dict("records"), strict=True):
        try:
            answers = list(read_answers(cells))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            # A cell holds a text where a list or a mapping should be, or the other way round.
            raise VerdictError(
                f"{file}, row {number}: its columns are those of an export of Label Studio or Argilla, but "
                f"their content is not ({type(error).__name__}: {error}). Export it again, as JSON."
            ) from error
        for answer in answers:
            answer["annotator"] = answer["annotator"] or file.stem
            # Texts are escaped in CSV files alone (`review.forms.as_spreadsheet`).
            if ".csv" in file.suffixes:
                answer |= {name: unescape_formula(answer[name]) for name in TEXTS if answer[name]}
            yield {"file": file.name, "row": int(number), **answer}


def _read_flat(cells: dict[Any, Any]) -> Iterator[dict[str, Any]]:
    yield {name: _text(cells.get(name)) for name in RAW_COLUMNS[2:]}


def _read_label_studio(cells: dict[Any, Any]) -> Iterator[dict[str, Any]]:
    data = cells["data"]
    task = {name: _text(data.get(name)) for name in RETURNED}
    for annotation in cells["annotations"] or ():
        if annotation.get("was_cancelled"):
            continue
        answers = {item["from_name"]: item["value"] for item in annotation["result"]}
        annotator = annotation.get("completed_by")
        if isinstance(annotator, dict):
            annotator = annotator.get("email") or annotator.get("id")
        yield {
            **task,
            "verdict": _text(answers.get("verdict")),
            "rules_broken": _text(answers.get("rules_broken")),
            "reason": _text(answers.get("reason")),
            "annotator": _text(annotator),
        }


def _read_argilla(cells: dict[Any, Any]) -> Iterator[dict[str, Any]]:
    # Argilla groups answers by question; here they are by user, one row each.
    by_user: dict[str, dict[str, Any]] = {}
    for question, answers in (cells["responses"] or {}).items():
        for answer in answers:
            by_user.setdefault(str(answer["user_id"]), {})[question] = answer["value"]
    metadata = cells.get("metadata") or {}
    task = {name: _text(metadata.get(name)) for name in ("policy", "policy_digest")}
    task["task_id"] = _text(cells.get("id"))
    task |= {name: _text(cells["fields"].get(name)) for name in TEXTS}
    for user, answers in by_user.items():
        verdict = {name: _text(answers.get(name)) for name in ("verdict", "rules_broken", "reason")}
        yield {**task, **verdict, "annotator": user}


def _text(value: Any) -> str | None:
    """A cell as text: choices and lists joined by commas, null where nothing was filled in."""
    if isinstance(value, dict):
        value = value.get("choices") or value.get("text")
    if isinstance(value, list | tuple):
        value = ",".join(map(str, value))
    if value is None or (isinstance(value, float) and pd.isna(value)) or not str(value).strip():
        return None
    return str(value)


def check_verdicts(
    raw: pd.DataFrame, tasks: pd.DataFrame, policy: Policy, *, same_as: Collection[str] = ()
) -> pd.DataFrame:
    """Check verdicts and return those that are filled in; an error names every mistake at once.

    Args:
        raw: From `read_verdicts`.
        tasks: Every task that people may have been given (`review.tasks.list_tasks` over all pairs).
        policy: The policy that verdicts must have been given under; `rules_broken` may name its rules.
        same_as: Digests of earlier texts of this policy whose verdicts hold for it as it is now.

    Returns:
        `VERDICT_COLUMNS`, one row per filled-in verdict; `complies` is null where the annotator was unsure.

    Raises:
        VerdictError: No row has a verdict; or there are unknown ids, changed texts, another policy or another
            text of it, words that are no verdict, unknown rules, rules broken by a response that complies, or
            two verdicts of one annotator on one task.
    """
    filled = read_filled_rows(raw, VERDICTS)
    tasks = tasks.set_index("task_id")
    rule_problems = _find_rule_problems(filled, policy)
    digests = {policy.fingerprint, *same_as}
    refuse_problems([*find_problems(filled, tasks, policy, digests, VERDICTS), *rule_problems])
    texts = tasks.loc[filled["task_id"], ["prompt", "response", "domain"]].reset_index(drop=True)
    stamped = filled.assign(**texts, policy=policy.full_name, policy_digest=policy.fingerprint)
    complies = pd.array([VERDICT_WORDS[word] for word in filled["verdict"]], dtype="boolean")
    return stamped.reindex(columns=list(VERDICT_COLUMNS)).astype("str").assign(complies=complies)


def refuse_problems(problems: Sequence[str]) -> None:
    """Raise an error that lists the first problems of returned forms, if there is any.

    Args:
        problems: One line each.

    Raises:
        VerdictError: There is a problem.
    """
    if problems:
        more = [f"- and {len(problems) - _LISTED} more"] if len(problems) > _LISTED else []
        lines = [f"{len(problems)} verdicts cannot be used. Correct these rows:", *problems[:_LISTED], *more]
        raise VerdictError("\n".join(lines))


def read_filled_rows(raw: pd.DataFrame, words: Collection[str]) -> pd.DataFrame:
    """Return the rows with a verdict, normalised: lower case, ids without spaces, one spelling per annotator.

    Args:
        raw: From `read_verdicts`.
        words: The verdicts that there are, for the message.

    Returns:
        `RAW_COLUMNS`.

    Raises:
        VerdictError: No row has a verdict.
    """
    filled = raw[raw["verdict"].notna()].reset_index(drop=True)
    if filled.empty:
        raise VerdictError(
            f"None of the {len(raw)} rows has a verdict, and an import replaces the one before it. "
            f"Fill in the column `verdict`: {', '.join(words)}."
        )
    names = filled["annotator"].map(lambda name: " ".join(str(name).split()))
    return filled.assign(
        verdict=filled["verdict"].str.strip().str.lower(),
        rules_broken=filled["rules_broken"].fillna("").map(lambda ids: ",".join(_split(ids))),
        annotator=names.groupby(names.str.casefold()).transform("first"),
    )


def _split(ids: str) -> list[str]:
    return [rule_id.strip() for rule_id in ids.split(",") if rule_id.strip()]


def find_problems(
    filled: pd.DataFrame,
    tasks: pd.DataFrame,
    policy: Policy,
    digests: Collection[str],
    words: Collection[str],
) -> list[str]:
    """List what is wrong with filled-in rows of any kind of form, one line per row and reason.

    Args:
        filled: From `read_filled_rows`.
        tasks: What people were asked, by task_id.
        policy: The policy that verdicts must have been given under.
        digests: Digests of its texts under which they hold.
        words: The verdicts that there are.

    Returns:
        Lines that name file and row.
    """
    policies = filled["policy"]
    other_policy = policies.notna() & (policies != policy.full_name)
    edited = filled["policy_digest"].notna() & ~filled["policy_digest"].isin(digests) & ~other_policy
    twice = filled.duplicated(["task_id", "annotator"], keep=False)
    return [
        *_find(filled, ~filled["task_id"].isin(tasks.index), "task_id", "no pair has such a task"),
        *_find_changed(filled, tasks),
        *_find(filled, other_policy, "policy", f"expected {policy.full_name}"),
        *_find(
            filled, edited, "policy_digest",
            f"the policy was edited since, and kept its version: it is {policy.fingerprint} now. Export and "
            "judge again; where the edit does not matter, name that digest as `review.same_as`",
        ),
        *_find(filled, ~filled["verdict"].isin(words), "verdict", f"expected {', '.join(words)}"),
        *_find(filled, twice, "annotator", "two verdicts on one task"),
    ]  # fmt: skip


def _find_rule_problems(filled: pd.DataFrame, policy: Policy) -> list[str]:
    rule_ids = {rule.id for rule in policy.rules}
    broken_rules = filled["rules_broken"].map(_split)
    return [
        *_find(
            filled, broken_rules.map(lambda ids: not rule_ids.issuperset(ids)), "rules_broken",
            "expected ids of the policy's rules",
        ),
        *_find(
            filled, (filled["verdict"] == "complies") & (broken_rules.map(len) > 0), "rules_broken",
            "broken rules and the verdict complies contradict each other",
        ),
    ]  # fmt: skip


def _find(filled: pd.DataFrame, wrong: pd.Series, field: str, expected: str) -> list[str]:
    """One line per wrong row: file, row, the field's value, and what was expected."""
    return [
        f"- {row['file']}, row {row['row']}, {field} {row[field]!r:.60}: {expected}"
        for row in filled[wrong.to_numpy(bool)].to_dict("records")
    ]


def _find_changed(filled: pd.DataFrame, tasks: pd.DataFrame) -> list[str]:
    """Texts that are not those of the task; spreadsheets may change white space and leading apostrophes."""
    problems = []
    for name in (text for text in TEXTS if text in tasks):
        returned = filled[name]
        original = filled["task_id"].map(tasks[name])
        changed = returned.notna() & original.notna() & (_normalise(returned) != _normalise(original))
        problems += [
            f"- {row['file']}, row {row['row']}, {name}: the text was changed, so the verdict is on "
            "another text"
            for row in filled[changed.to_numpy(bool)].to_dict("records")
        ]
    return problems


def _normalise(texts: pd.Series) -> pd.Series:
    return texts.fillna("").map(lambda text: " ".join(str(text).lstrip("'").split()))
