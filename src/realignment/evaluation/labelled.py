"""Responses and answers that a person has labelled: by them judges are trained and measured."""

from typing import Any

import pandas as pd

from realignment import intake
from realignment.intake.flags import read_verdict_column
from realignment.judging import JUDGED_RESPONSES, list_exchanges
from realignment.oracles.human import check_policy_text, policy_digests
from realignment.policy import Policy
from realignment.records import TRUTH_COLUMNS, DataError, Exchange

ANSWER_COLUMNS = ("prompt", "response", "domain", "complies", "policy")


def labelled_exchanges(pairs: pd.DataFrame) -> tuple[list[Exchange], list[bool]]:
    """List every response that has a hand-set label; a correction was written to comply, so it counts too.

    Args:
        pairs: Pairs with any of the columns chosen_complies, rejected_complies, correction_complies.

    Returns:
        N exchanges, and whether each complies, N booleans.
    """
    exchanges: list[Exchange] = []
    labels: list[bool] = []
    for response in JUDGED_RESPONSES:
        column = f"{response}_complies"
        if response == "correction" and "chosen_complies" in pairs:
            rows = pairs[pairs[response].notna()]
            truth = [True] * len(rows)
        elif column in pairs:
            verdicts = read_verdict_column(pairs, column)
            rows = pairs[verdicts.notna()]
            truth = verdicts.dropna().tolist()
        else:
            continue
        exchanges += list_exchanges(rows, response)
        labels += truth
    return exchanges, labels


def labelled_answers(answers: pd.DataFrame, policy: Policy) -> tuple[list[Exchange], list[bool]]:
    """List answers of models that have a hand-set label under this policy; others are left out.

    Where `answers_question` is false, an answer to a prompt outside the policy violates for want of content,
    not because it applies the policy there. That is no over-refusal, so a judge is right to let it pass.

    Args:
        answers: Columns prompt, response, domain, complies, policy (``name-version``), and where it is known
            answers_question; may be empty.
        policy: The policy to judge by.

    Returns:
        N exchanges, and whether each complies, N booleans.

    Raises:
        DataError: Columns are missing, a label is no verdict, or the policy was edited since.
    """
    if answers.empty:
        return [], []
    missing_columns = [column for column in ANSWER_COLUMNS if column not in answers]
    if missing_columns:
        raise DataError(
            f"The labelled answers lack columns {', '.join(missing_columns)}; found "
            f"{', '.join(answers.columns)}, expected {', '.join(ANSWER_COLUMNS)}. Without such a file set "
            "`labelled_answers: none`."
        )
    check_policy_text(policy_digests(answers).get(policy.full_name, ()), policy)
    rows = answers[answers["policy"] == policy.full_name]
    labels = read_verdict_column(rows)
    rows = rows[labels.notna()]
    incomplete = rows.index[rows["prompt"].isna() | rows["response"].isna()].tolist()
    if incomplete:
        raise DataError(
            f"{answers.attrs.get('source', 'The table')}: {len(incomplete)} labelled rows have no prompt or "
            f"no response (first: row {incomplete[0]}). Fill them in, or leave the rows out."
        )
    labels = labels.dropna()
    if "answers_question" in rows:
        labels = labels | read_verdict_column(rows, "answers_question").eq(False).fillna(False)
    return list_exchanges(rows, "response"), labels.tolist()


def labelled_table(labels: pd.DataFrame, policy: Policy) -> tuple[list[Exchange], list[bool]]:
    """List the labelled exchanges of a user's table: pairs with labels, or responses with a verdict each.

    Args:
        labels: Columns chosen_complies or rejected_complies (pairs, in any format that is read); or prompt,
            response, complies, and where they are known domain and policy (answers, or imported verdicts).
        policy: Labels under another policy are left out.

    Returns:
        N exchanges, and whether each complies, N booleans; N > 0.

    Raises:
        DataError: It is neither, a label is no verdict, or no label is of this policy.
    """
    if {"prompt", "response", "complies"} <= set(labels.columns):
        table = labels.assign(domain=labels.get("domain"), policy=labels.get("policy", policy.full_name))
        exchanges, verdicts = labelled_answers(table, policy)
    else:
        limits: dict[str, Any] = {"max_prompt_chars": 1_000_000, "long_prompts": "drop"}
        # Rows that cannot be used are skipped, but a label that cannot be read is an error.
        truth = {name: read_verdict_column(labels, name) for name in TRUTH_COLUMNS if name in labels}
        pairs = intake.clean_pairs(labels.assign(**truth), invalid="skip", **limits).pairs
        exchanges, verdicts = labelled_exchanges(pairs)
    if not exchanges:
        raise DataError(
            f"The table has no label under {policy.full_name}. Expected columns prompt, response, complies "
            "(and policy, where it differs), or pairs with chosen_complies and rejected_complies. Found "
            f"columns: {', '.join(map(str, labels.columns))}."
        )
    return exchanges, verdicts
