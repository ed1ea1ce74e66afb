"""Write tasks as forms: a table to fill in, and what Label Studio and Argilla import."""

import json
from collections.abc import Sequence
from typing import Any
from xml.sax.saxutils import quoteattr

import pandas as pd

from realignment.policy import Policy
from realignment.review.spreadsheets import escape_formula
from realignment.review.verdicts import TEXTS, VERDICTS

FIELDS = ["task_id", "policy", "policy_digest", "domain", "prompt", "response"]
ANSWERS = ["verdict", "rules_broken", "reason", "annotator"]


def as_table(
    tasks: pd.DataFrame, fields: Sequence[str] = FIELDS, answers: Sequence[str] = ANSWERS
) -> pd.DataFrame:
    """Return the tasks as a table with these fields, whose columns to fill in are empty."""
    return tasks[list(fields)].assign(**dict.fromkeys(answers, ""))


def as_spreadsheet(
    tasks: pd.DataFrame, fields: Sequence[str] = FIELDS, answers: Sequence[str] = ANSWERS
) -> pd.DataFrame:
    """Return the same table for a CSV file, with texts escaped that a spreadsheet would take for formulas."""
    table = as_table(tasks, fields, answers)
    texts = [name for name in ("domain", *TEXTS) if name in fields]
    return table.assign(**{name: table[name].map(escape_formula, na_action="ignore") for name in texts})


def as_json_lines(
    tasks: pd.DataFrame, fields: Sequence[str] = FIELDS, answers: Sequence[str] = ANSWERS
) -> str:
    """Return the same table as text, one JSON object a line."""
    table = as_table(tasks, fields, answers)
    rows = table.astype(object).where(table.notna(), None).to_dict("records")
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def as_label_studio(tasks: pd.DataFrame, fields: Sequence[str] = FIELDS) -> list[dict[str, Any]]:
    """Return the tasks in Label Studio's import format: a list of tasks, each with its `data`."""
    return [{"data": _without_nulls(row)} for row in tasks[list(fields)].to_dict("records")]


def as_argilla(tasks: pd.DataFrame, texts: Sequence[str] = ("prompt", "response")) -> list[dict[str, Any]]:
    """Return the tasks as `dataset.records.from_json` of Argilla 2 reads them.

    Args:
        tasks: From `review.tasks`.
        texts: The columns that are shown as fields.

    Returns:
        One record per task: the texts as fields, metadata, and no responses yet.
    """
    records = []
    for row in tasks.to_dict("records"):
        metadata = {name: row[name] for name in ("policy", "policy_digest", "domain")}
        records.append(
            {
                "id": row["task_id"],
                "fields": {name: row[name] for name in texts},
                "metadata": _without_nulls(metadata),
                "suggestions": {},
                "responses": {},
            }
        )
    return records


def label_studio_config(policy: Policy) -> str:
    """Write the labelling interface of Label Studio: verdict, broken rules, reason."""
    verdicts = "\n".join(f'    <Choice value="{verdict}"/>' for verdict in VERDICTS)
    rules = "\n".join(
        f"    <Choice value={quoteattr(rule.id)} hint={quoteattr(rule.description)}/>"
        for rule in policy.rules
    )
    checkboxes = (
        f'  <Header value="Rules that it breaks"/>\n  <Choices name="rules_broken" toName="response" '
        f'choice="multiple" visibleWhen="choice-selected" whenTagName="verdict" whenChoiceValue="violates">\n'
        f"{rules}\n  </Choices>\n"
    )
    return (
        "<View>\n"
        f"  <Header value={quoteattr(f'Does the response comply with {policy.name} {policy.version}?')}/>\n"
        '  <Text name="prompt" value="$prompt"/>\n'
        '  <Text name="response" value="$response"/>\n'
        '  <Choices name="verdict" toName="response" choice="single" required="true">\n'
        f"{verdicts}\n  </Choices>\n"
        f"{checkboxes if policy.rules else ''}"
        '  <TextArea name="reason" toName="response" maxSubmissions="1"/>\n'
        "</View>\n"
    )


def guidelines(policy: Policy, tasks: pd.DataFrame) -> str:
    """Write the page of instructions for the people who judge: policy, question, possible answers.

    Args:
        policy: The policy to judge by.
        tasks: The tasks; the page says how many there are.

    Returns:
        The page, in Markdown.
    """
    rules = "\n".join(f"- `{rule.id}`: {rule.description.strip()}" for rule in policy.rules)
    return (
        f"# Does the response comply? {policy.name}, version {policy.version}\n\n"
        f"{len(tasks)} responses. Judge each by this policy alone, not by how well you like it:\n\n"
        f"{policy.text.strip()}\n\n{rules}\n\n"
        "Fill in `verdict`: `complies`, `violates`, or `unsure` where the policy leaves it open or you "
        "cannot tell. With `violates`, name the rules in `rules_broken`, separated by commas. `reason` is "
        "free text. `annotator` is your name; without it, the name of your file is taken. Change nothing "
        "else. Judge by yourself: agreement is measured afterwards.\n"
    )


def _without_nulls(row: dict[Any, Any]) -> dict[str, Any]:
    return {str(key): value for key, value in row.items() if not pd.isna(value)}
