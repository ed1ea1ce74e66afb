"""Who judges the answers: never only the oracle that labelled the data."""

from collections.abc import Collection
from typing import Any

import numpy as np
import pandas as pd

from realignment import intake
from realignment.intake.flags import verdict_column
from realignment.judging import JUDGED_RESPONSES, exchanges_of
from realignment.oracles import Oracle
from realignment.oracles.classifier import ClassifierError, train_classifier
from realignment.oracles.human import check_text, digests_of
from realignment.oracles.rules import RulesOracle
from realignment.policy import Policy
from realignment.records import TRUTH_COLUMNS, DataError, Exchange
from realignment.statistics import wilson_interval

ANSWER_COLUMNS = ("prompt", "response", "domain", "complies", "policy")


NOT_INDEPENDENT = (
    "No second judge: the pairs were labelled by a classifier, and another that learns from the same labels "
    "would share its errors. Have people judge a sample of the answers."
)


def labelled_exchanges(pairs: pd.DataFrame) -> tuple[list[Exchange], list[bool]]:
    """Every response with a hand-set label; a correction was written to comply, so it counts as complying."""
    exchanges: list[Exchange] = []
    labels: list[bool] = []
    for response in JUDGED_RESPONSES:
        column = f"{response}_complies"
        if response == "correction" and "chosen_complies" in pairs:
            rows = pairs[pairs[response].notna()]
            truth = [True] * len(rows)
        elif column in pairs:
            given = verdict_column(pairs, column)
            rows, truth = pairs[given.notna()], given.dropna().tolist()
        else:
            continue
        exchanges += exchanges_of(rows, response)
        labels += truth
    return exchanges, labels


def labelled_answers(answers: pd.DataFrame, policy: Policy) -> tuple[list[Exchange], list[bool]]:
    """Answers of models with a hand-set label under this very policy; null ones, and others, say nothing.

    Args:
        answers: Columns prompt, response, domain, complies, policy (``name-version``); may be empty.
        policy: The policy to judge by.

    Raises:
        DataError: Columns are missing, a label is no verdict, or the policy was edited since.
    """
    if answers.empty:
        return [], []
    if missing := [column for column in ANSWER_COLUMNS if column not in answers]:
        raise DataError(
            f"The labelled answers lack columns {', '.join(missing)}; found {', '.join(answers.columns)}, "
            f"expected {', '.join(ANSWER_COLUMNS)}. Without such a file set `labelled_answers: none`."
        )
    check_text(digests_of(answers).get(policy.full_name, ()), policy)
    rows = answers[answers["policy"] == policy.full_name]
    labels = verdict_column(rows)
    rows = rows[labels.notna()]
    if gaps := rows.index[rows["prompt"].isna() | rows["response"].isna()].tolist():
        raise DataError(
            f"{answers.attrs.get('source', 'The table')}: {len(gaps)} labelled rows have no prompt or no "
            f"response (first: row {gaps[0]}). Fill them in, or leave the rows out."
        )
    return exchanges_of(rows, "response"), labels.dropna().tolist()


def labelled_table(labels: pd.DataFrame, policy: Policy) -> tuple[list[Exchange], list[bool]]:
    """Labelled exchanges of a table that people bring: pairs with labels, or responses with a verdict each.

    Args:
        labels: Columns chosen_complies or rejected_complies (pairs, in any format that is read); or prompt,
            response, complies, and where they are known domain and policy (answers, or imported verdicts).
        policy: Labels under another policy are left out.

    Raises:
        DataError: It is neither, a label is no verdict, or no label is of this policy.
    """
    if {"prompt", "response", "complies"} <= set(labels.columns):
        table = labels.assign(domain=labels.get("domain"), policy=labels.get("policy", policy.full_name))
        exchanges, verdicts = labelled_answers(table, policy)
    else:
        limits: dict[str, Any] = {"max_prompt_chars": 1_000_000, "long_prompts": "drop"}
        # A row that cannot be used is no loss here, a label that cannot be read is a mistake.
        read = {name: verdict_column(labels, name) for name in TRUTH_COLUMNS if name in labels}
        pairs = intake.clean_pairs(labels.assign(**read), invalid="skip", **limits).pairs
        exchanges, verdicts = labelled_exchanges(pairs)
    if not exchanges:
        raise DataError(
            f"The table has no label under {policy.full_name}. Expected columns prompt, response, complies "
            "(and "
            "policy, where it differs), or pairs with chosen_complies and rejected_complies. Found columns: "
            f"{', '.join(map(str, labels.columns))}."
        )
    return exchanges, verdicts


def appoint(
    pairs: pd.DataFrame,
    answers: pd.DataFrame,
    policy: Policy,
    *,
    folds: int,
    seed: int,
    labelled_by: Collection[str] = (),
) -> tuple[list[Oracle], dict[str, Any]]:
    """The judges, and what is known of them.

    The rules judge where the policy has any; a classifier joins them where there are hand-set labels.
    Labelled answers of models matter: what people wrote does not show how a small model gets it wrong.
    Where a classifier has labelled the pairs, another one that learns from the same labels would share its
    errors: it is no judge of what they did, and is not appointed.

    Returns:
        Judges, and the report: the classifier's cross-validated accuracy (over all labels, over the pairs'
        responses, over models' answers) and the rules' over models' answers; or why there is no classifier.
    """
    if not policy.checked_rules:
        return [], {
            "judges": [],
            "note": "The policy has no machine-checkable rules: held-out pairs are scored instead.",
        }
    rules = RulesOracle()
    if "classifier" in labelled_by:
        return [rules], {"judges": ["rules"], "note": NOT_INDEPENDENT}
    written, answered = labelled_exchanges(pairs), labelled_answers(answers, policy)
    exchanges, labels = written[0] + answered[0], written[1] + answered[1]
    try:
        classifier, validation = train_classifier(exchanges, labels, folds=folds, seed=seed)
    except ClassifierError as error:
        return [rules], {"judges": ["rules"], "note": f"No second judge: {error}"}
    correct, n_written = validation.correct, len(written[1])
    verdicts = [j.complies for j in rules(answered[0], policy)]
    of_rules = [v == label for v, label in zip(verdicts, answered[1], strict=True) if v is not None]
    report = {
        "judges": ["rules", "classifier"],
        "classifier": {
            "folds": validation.folds,
            "cross_validated": _accuracy(correct),
            "on_written_responses": _accuracy(correct[:n_written]),
            "on_model_answers": _accuracy(correct[n_written:]),
        },
        "rules": {"on_model_answers": _accuracy(np.array(of_rules, dtype=bool))},
    }
    return [rules, classifier], report


def _accuracy(correct: np.ndarray) -> dict[str, Any] | None:
    if not len(correct):
        return None
    interval = wilson_interval(int(correct.sum()), len(correct))
    return {"n": len(correct), "accuracy": float(correct.mean()), "interval": list(interval)}
