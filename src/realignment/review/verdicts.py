"""What people hand back, read and checked: every mistake with its file and row."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from realignment.intake.readers import SUFFIXES, read_table
from realignment.records import DataError

VERDICTS = ("complies", "violates", "unsure")
VERDICT_COLUMNS = (
    "task_id", "prompt", "response", "domain", "policy", "complies", "rules_broken", "reason", "annotator",
)  # fmt: skip
RAW_COLUMNS = (
    "file", "row", "task_id", "verdict", "rules_broken", "reason", "annotator", "prompt", "response",
    "policy",
)  # fmt: skip
_SHOWN = 10


class VerdictError(DataError):
    """Verdicts that cannot be used as they are; the message names every file and row, up to ten."""


def read_verdicts(source: str) -> pd.DataFrame:
    """Rows of a file, or of every file in a folder: our own forms, Label Studio's or Argilla's exports.

    Args:
        source: CSV, JSON Lines, JSON or Parquet; or a folder of such files, one per annotator for example.

    Returns:
        `RAW_COLUMNS`; what a form does not give is null. The annotator is the file's name where no column
        names one.

    Raises:
        DataError: There is no such file, or it has not the columns of any of these formats.
    """
    path = Path(source)
    files = sorted(f for f in path.iterdir() if f.name.endswith(SUFFIXES)) if path.is_dir() else [path]
    if not files:
        raise VerdictError(f"The folder {path} holds no file that ends in {', '.join(SUFFIXES)}.")
    rows = [row for file in files for row in _read_file(file)]
    return pd.DataFrame(rows, columns=list(RAW_COLUMNS), dtype=object)


def _read_file(file: Path) -> Iterator[dict[str, Any]]:
    table = read_table(str(file))
    columns = set(map(str, table.columns))
    if {"data", "annotations"} <= columns:
        read = _read_label_studio
    elif {"fields", "responses"} <= columns:
        read = _read_argilla
    elif {"task_id", "verdict"} <= columns:
        read = _read_flat
    else:
        raise VerdictError(
            f"{file} has columns {', '.join(sorted(columns))}; expected task_id and verdict (our own "
            "forms, or "
            "Label Studio's JSON-MIN and CSV), data and annotations (Label Studio's JSON), or fields and "
            "responses (Argilla). Was the form exported, and were its columns kept?"
        )
    for number, cells in zip(table.index, table.to_dict("records"), strict=True):
        try:
            answers = list(read(cells))
        except (
            AttributeError,
            KeyError,
            TypeError,
            ValueError,
        ) as error:  # lists, mappings and texts mixed up
            raise VerdictError(
                f"{file}, row {number}: its columns are those of an export of Label Studio or Argilla, and "
                f"what is in them is not ({type(error).__name__}: {error}). Export it again, as JSON."
            ) from error
        for answer in answers:
            yield {
                "file": file.name,
                "row": int(number),
                **answer,
                "annotator": answer["annotator"] or file.stem,
            }


def _read_flat(cells: dict[Any, Any]) -> Iterator[dict[str, Any]]:
    names = ("task_id", "verdict", "rules_broken", "reason", "annotator", "prompt", "response", "policy")
    yield {name: _text(cells.get(name)) for name in names}


def _read_label_studio(cells: dict[Any, Any]) -> Iterator[dict[str, Any]]:
    data = cells["data"]
    shown = {name: _text(data.get(name)) for name in ("task_id", "prompt", "response", "policy")}
    for annotation in cells["annotations"] or ():
        if annotation.get("was_cancelled"):
            continue
        answers = {item["from_name"]: item["value"] for item in annotation["result"]}
        by = annotation.get("completed_by")
        yield {
            **shown,
            "verdict": _text(answers.get("verdict")),
            "rules_broken": _text(answers.get("rules_broken")),
            "reason": _text(answers.get("reason")),
            "annotator": _text((by.get("email") or by.get("id")) if isinstance(by, dict) else by),
        }


def _read_argilla(cells: dict[Any, Any]) -> Iterator[dict[str, Any]]:
    by_user: dict[str, dict[str, Any]] = {}
    for question, answers in (cells["responses"] or {}).items():
        for answer in answers:
            by_user.setdefault(str(answer["user_id"]), {})[question] = answer["value"]
    shown = {"task_id": _text(cells.get("id")), "policy": _text((cells.get("metadata") or {}).get("policy"))}
    shown |= {name: _text(cells["fields"].get(name)) for name in ("prompt", "response")}
    for user, answers in by_user.items():
        given = {name: _text(answers.get(name)) for name in ("verdict", "rules_broken", "reason")}
        yield {**shown, **given, "annotator": user}


def _text(value: Any) -> str | None:
    """A cell as text: choices and lists joined by commas, null where nothing was filled in."""
    if isinstance(value, dict):
        value = value.get("choices") or value.get("text")
    if isinstance(value, list | tuple):
        value = ",".join(map(str, value))
    if value is None or (isinstance(value, float) and pd.isna(value)) or not str(value).strip():
        return None
    return str(value)


def check_verdicts(raw: pd.DataFrame, tasks: pd.DataFrame, policy: str, rules: Iterable[str]) -> pd.DataFrame:
    """Verdicts that can be used, or every mistake at once.

    Args:
        raw: From `read_verdicts`.
        tasks: Everything that could have been asked (`tasks.list_tasks` over all pairs).
        policy: Name and version that verdicts must have been given under.
        rules: Ids that `rules_broken` may name.

    Returns:
        `VERDICT_COLUMNS`, one row per filled-in verdict; `complies` is null where the annotator was unsure.

    Raises:
        VerdictError: No row has a verdict; or unknown ids, changed texts, another policy, words that are no
            verdict, unknown rules, or two verdicts of one annotator on one task.
    """
    filled = raw[raw["verdict"].notna()].reset_index(drop=True)
    if filled.empty:
        raise VerdictError(
            f"None of the {len(raw)} rows has a verdict, and an import takes the place of the one before it. "
            f"Fill in the column `verdict`: {', '.join(VERDICTS)}."
        )
    known = tasks.set_index("task_id")
    words = filled["verdict"].str.strip().str.lower()
    named = (
        filled["rules_broken"].fillna("").map(lambda ids: [i.strip() for i in ids.split(",") if i.strip()])
    )
    other = filled["policy"].notna() & (filled["policy"] != policy)
    problems = [
        *_find(filled, ~filled["task_id"].isin(known.index), "task_id", "no pair has such a task"),
        *_find_changed(filled, known),
        *_find(filled, other, "policy", f"expected {policy}"),
        *_find(filled, ~words.isin(VERDICTS), "verdict", f"expected {', '.join(VERDICTS)}"),
        *_find(
            filled.assign(rules_broken=named.map(",".join)),
            named.map(lambda ids: not set(ids) <= set(rules)),
            "rules_broken",
            "expected ids of the policy's rules",
        ),
        *_find(
            filled, filled.duplicated(["task_id", "annotator"], keep=False), "annotator",
            "two verdicts on one task",
        ),
    ]  # fmt: skip
    if problems:
        more = [f"- and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
        raise VerdictError(
            "\n".join(
                [f"{len(problems)} verdicts cannot be used. Mend these rows:", *problems[:_SHOWN], *more]
            )
        )
    texts = known.loc[filled["task_id"], ["prompt", "response", "domain"]].reset_index(drop=True)
    complies = words.map({"complies": True, "violates": False, "unsure": pd.NA})
    return pd.DataFrame(
        {
            "task_id": filled["task_id"].astype("str"),
            **{name: texts[name].astype("str") for name in texts},
            "policy": policy,
            "complies": pd.array(complies.tolist(), dtype="boolean"),
            "rules_broken": named.map(",".join).astype("str"),
            "reason": filled["reason"].astype("str"),
            "annotator": filled["annotator"].astype("str"),
        },
        columns=list(VERDICT_COLUMNS),
    )


def _find(filled: pd.DataFrame, wrong: pd.Series, field: str, expected: str) -> list[str]:
    return [
        f"- {row['file']}, row {row['row']}, {field} {row[field]!r:.60}: {expected}"
        for row in filled[wrong.to_numpy(bool)].to_dict("records")
    ]


def _find_changed(filled: pd.DataFrame, known: pd.DataFrame) -> list[str]:
    """Texts that are not those of the task; white space does not matter, for spreadsheets change it."""
    problems = []
    for name in ("prompt", "response"):
        given, asked = filled[name], filled["task_id"].map(known[name])
        changed = given.notna() & asked.notna() & (_plain(given) != _plain(asked))
        problems += [
            f"- {row['file']}, row {row['row']}, {name}: the text was changed, so the verdict is on "
            "another text"
            for row in filled[changed.to_numpy(bool)].to_dict("records")
        ]
    return problems


def _plain(texts: pd.Series) -> pd.Series:
    return texts.fillna("").map(lambda text: " ".join(str(text).split()))
