"""Writes `parameters.md`: every parameter with type, defaults and meaning, from the models and `conf/base`.

Run it as ``python docs/reference/make_parameters.py``. A test checks that the page is up to date.
"""

from collections.abc import Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from realignment.parameters import (
    AlignParameters,
    AuditParameters,
    BaselinesParameters,
    ClassifierParameters,
    CorrectionsParameters,
    EvaluationParameters,
    GoldParameters,
    ImpactParameters,
    IntakeParameters,
    JudgingParameters,
    LossParameters,
    ModelsParameters,
    PrinciplesParameters,
    PromotionParameters,
    ReviewParameters,
    StreamingParameters,
    TrainingParameters,
    TriageParameters,
)
from realignment.parameters.base import ModelParameters
from realignment.tracking.run import MlflowConfig

PROJECT = Path(__file__).resolve().parents[2]
PAGE = Path(__file__).with_name("parameters.md")

GROUPS: dict[str, type[BaseModel]] = {
    "intake": IntakeParameters,
    "judging": JudgingParameters,
    "triage": TriageParameters,
    "streaming": StreamingParameters,
    "audit": AuditParameters,
    "review": ReviewParameters,
    "classifier": ClassifierParameters,
    "corrections": CorrectionsParameters,
    "gold": GoldParameters,
    "model": ModelParameters,
    "loss": LossParameters,
    "impact": ImpactParameters,
    "training": TrainingParameters,
    "evaluation": EvaluationParameters,
    "models": ModelsParameters,
    "promotion": PromotionParameters,
    "align": AlignParameters,
    "baselines": BaselinesParameters,
    "principles": PrinciplesParameters,
}
"""Top-level parameter → its model, in the order of the stages."""

_HEAD = """# Parameters

Written by [make_parameters.py](make_parameters.py) from `src/realignment/parameters/` and
`conf/base`; do not edit.

Give a parameter on the command line (`kedro run --params training.epochs=2,gold.size=24`), or in a file
for `kedro run --config` (see `conf/runs/`), which can also hold lists and mappings. With `--config`, a
`--params` on the command line takes the place of all `params` of the file. Every value is checked before
any node runs, and a name that is not listed here is an error.

"conf/base" is the value that a run has without being told otherwise; "model" is what holds where
the configuration leaves the name out ("–": it has to be given). `${…}` is resolved by Kedro.
"""
_INPUTS_HEAD = """
## What a run works on

`conf/base/globals.yml`. Each can be given on the command line under this name.

| name | conf/base | meaning |
|---|---|---|
"""
_INPUTS = {
    "data_root": "Folder of everything that the run writes",
    "pairs": "The preference pairs: a file (JSON Lines, JSON, CSV, Parquet) or `hub://org/name?split=…`",
    "policy": "The policy to re-align to: a file of `conf/base/policies` without `.yml`, or a path with it",
    "old_policy": "The policy that the pairs were labelled under, likewise, or `inferred`: for the diff and "
    "one metric",
    "evaluation_prompts": "Prompts that both models answer; `none`: only held-out pairs are used",
    "attacks": "The attacks of the evaluation: a YAML file of wrappers",
    "behaviours": "Requests that the attacks ask for; `none`: those of the policy, or the regulated prompts",
    "verdicts": "What people hand back, for `review_import`: a file, or a folder of files; or `none`",
    "votes": "What people hand back, for `win_rate_import`: a file, or a folder of files; or `none`",
    "classifier_labels": "Labelled pairs, answers or verdicts, for `train_classifier`",
    "written_corrections": "Corrections that people wrote, by pair_id; or `none`",
    "labelled_answers": "Answers of models with hand-set verdicts, to measure the judges; or `none`",
}
_OTHERS_HEAD = """
`model_source` is short for `model.source`.

## seed, method and work_folder

| name | type | conf/base | meaning |
|---|---|---|---|
"""
_OTHERS = {
    "seed": ("integer", "Of every draw, initialisation and order: one seed, one result on one machine"),
    "method": ("text", "A file of `conf/base/methods`: what it changes of loss, impact, gold and training"),
    "work_folder": ("text", "Checkpoints of unfinished runs; a run with the same inputs resumes from here"),
}
_MLFLOW = """
## mlflow.yml

`conf/base/mlflow.yml`. The environment variable MLFLOW_TRACKING_URI comes before `tracking_uri`.
"""
_MLFLOW_MEANINGS = {
    "enabled": "Whether runs are recorded; without, nothing is registered either",
    "tracking_uri": "null: `mlflow.db` in the project folder; or `http://host:5000`, `sqlite:///path.db`",
    "experiment": "Name of the MLflow experiment",
}
_TYPES = {str: "text", int: "integer", float: "number", bool: "true, false", NoneType: "null", Any: "any"}
_PIPE = r"\|"
_BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}


def write_page() -> str:
    """The whole page."""
    names = yaml.safe_load((PROJECT / "conf/base/globals.yml").read_text(encoding="utf-8"))
    common = yaml.safe_load((PROJECT / "conf/base/parameters.yml").read_text(encoding="utf-8"))
    lines = [_HEAD, _INPUTS_HEAD.rstrip("\n")]
    lines += [f"| `{name}` | {_show(names[name])} | {_INPUTS[name]} |" for name in names]
    lines.append(_OTHERS_HEAD.rstrip("\n"))
    lines += [
        f"| `{name}` | {_OTHERS[name][0]} | {_show(common[name])} | {_OTHERS[name][1]} |" for name in common
    ]
    for group, model in GROUPS.items():
        lines += [
            "",
            f"## {group}",
            "",
            str(model.__doc__),
            "",
            *_table(_rows(group, model, _configured(group))),
        ]
    configured = yaml.safe_load((PROJECT / "conf/base/mlflow.yml").read_text(encoding="utf-8"))
    rows = _rows("", MlflowConfig, configured)
    lines += [_MLFLOW, *_table((*row[:-1], _MLFLOW_MEANINGS[row[0].strip("`")]) for row in rows)]
    return "\n".join(lines) + "\n"


def _configured(group: str) -> dict[str, Any]:
    for file in sorted((PROJECT / "conf/base").glob("parameters_*.yml")):
        document = yaml.safe_load(file.read_text(encoding="utf-8"))
        if group in document:
            return dict(document[group])
    return {}


def _table(rows: Any) -> list[str]:
    header = ["| name | type | conf/base | model | meaning |", "|---|---|---|---|---|"]
    return header + [f"| {' | '.join(cell.replace('|', _PIPE) for cell in row)} |" for row in rows]


def _rows(prefix: str, model: type[BaseModel], configured: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """name, type, value in conf/base, default of the model, meaning: one row per field, nested ones below."""
    for name, field in model.model_fields.items():
        full = f"{prefix}.{name}" if prefix else name
        given = _show(configured[name]) if name in configured else "–"
        default = "–" if field.is_required() else _show(field.default)
        nested = _nested_model(field.annotation)
        if nested is not None:
            given = "see below" if isinstance(configured.get(name), dict) else given
        yield f"`{full}`", _describe_type(field), given, default, field.description or ""
        if nested is not None:
            yield from _rows(full, nested, configured.get(name) or {})


def _nested_model(annotation: Any) -> type[BaseModel] | None:
    options = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    return next((kind for kind in options if isinstance(kind, type) and issubclass(kind, BaseModel)), None)


def _describe_type(field: FieldInfo) -> str:
    bounds = [*field.metadata]
    if get_origin(field.annotation) is Annotated:
        bounds += get_args(field.annotation)[1:]
    limits = [_describe_bound(bound) for bound in bounds]
    return ", ".join([_name_type(field.annotation), *filter(None, limits)])


def _describe_bound(bound: Any) -> str:
    if isinstance(bound, annotated_types.MinLen):
        return "not empty"
    return " ".join(
        f"{sign} {getattr(bound, key)}"
        for key, sign in _BOUNDS.items()
        if getattr(bound, key, None) is not None
    )


def _name_type(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin in (Union, UnionType):
        return " or ".join(_name_type(kind) for kind in arguments)
    if origin is Annotated:
        bounds = [_describe_bound(bound) for extra in arguments[1:] for bound in extra.metadata]
        return " ".join([_name_type(arguments[0]), *filter(None, bounds)])
    if origin is tuple:
        return f"list of {_name_type(arguments[0])}"
    if origin is dict or (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        return "mapping"
    return _TYPES[annotation]


def _show(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return f"`{str(value).lower().replace('none', 'null')}`"
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        return f"{len(value)} mappings, see the file"
    if isinstance(value, list | tuple):
        return f"`[{', '.join(map(str, value))}]`"
    return f"`{value}`"


def main() -> None:
    """Write the page."""
    PAGE.write_text(write_page(), encoding="utf-8")


if __name__ == "__main__":
    main()
