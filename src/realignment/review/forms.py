"""Tasks as forms: a table to fill in, and what Label Studio and Argilla import."""

import json
from typing import Any
from xml.sax.saxutils import quoteattr

import pandas as pd

from realignment.policy import Policy
from realignment.review.spreadsheets import guard
from realignment.review.verdicts import VERDICTS

SHOWN = ["task_id", "policy", "policy_digest", "domain", "prompt", "response"]
ANSWERS = ["verdict", "rules_broken", "reason", "annotator"]


def as_table(tasks: pd.DataFrame) -> pd.DataFrame:
    """A table with the columns to fill in left empty."""
    return tasks[SHOWN].assign(**dict.fromkeys(ANSWERS, ""))


def as_spreadsheet(tasks: pd.DataFrame) -> pd.DataFrame:
    """The same table for a CSV file, where no text is a formula; reading takes the guards off again."""
    table = as_table(tasks)
    texts = ["domain", "prompt", "response"]
    return table.assign(**{name: table[name].map(guard, na_action="ignore") for name in texts})


def as_json_lines(tasks: pd.DataFrame) -> str:
    """The same table, one JSON object a line."""
    rows = as_table(tasks).astype(object).where(as_table(tasks).notna(), None).to_dict("records")
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def as_label_studio(tasks: pd.DataFrame) -> list[dict[str, Any]]:
    """Label Studio's import format: a list of tasks, each with its `data`."""
    return [{"data": _without_nulls(row)} for row in tasks[SHOWN].to_dict("records")]


def as_argilla(tasks: pd.DataFrame) -> list[dict[str, Any]]:
    """What `dataset.records.from_json` of Argilla 2 reads: fields prompt and response, question verdict."""
    return [
        {
            "id": row["task_id"],
            "fields": {"prompt": row["prompt"], "response": row["response"]},
            "metadata": {k: row[k] for k in ("policy", "policy_digest", "domain") if not pd.isna(row[k])},
            "suggestions": {},
            "responses": {},
        }
        for row in tasks.to_dict("records")
    ]


def label_studio_config(policy: Policy) -> str:
    """The labelling interface of Label Studio: verdict, broken rules, reason."""
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
    """One page for the people who judge: the policy, the question, the answers that there are."""
    rules = "\n".join(f"- `{rule.id}`: {rule.description.strip()}" for rule in policy.rules)
    return (
        f"# Does the response comply? {policy.name}, version {policy.version}\n\n"
        f"{len(tasks)} responses. Judge each by this policy alone, not by how well you like it:\n\n"
        f"{policy.text.strip()}\n\n{rules}\n\n"
        "Fill in `verdict`: `complies`, `violates`, or `unsure` where the policy leaves it open or you "
        "cannot tell. "
        "With `violates`, name the rules in `rules_broken`, separated by commas. `reason` is free text. "
        "`annotator` is your name; without it, the name of your file is taken. Change nothing else. Judge by "
        "yourself: agreement is measured afterwards.\n"
    )


def _without_nulls(row: dict[Any, Any]) -> dict[str, Any]:
    return {str(key): value for key, value in row.items() if not pd.isna(value)}
