"""Choose who judges the answers: never only the oracle that labelled the data."""

from collections.abc import Collection, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from realignment import intake
from realignment.evaluation.error_correction import measure_quality
from realignment.intake.flags import read_verdict_column
from realignment.judging import JUDGED_RESPONSES, list_exchanges
from realignment.oracles import Oracle
from realignment.oracles.classifier import ClassifierError
from realignment.oracles.cross_validation import fit_classifier
from realignment.oracles.human import check_policy_text, policy_digests
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

    Args:
        answers: Columns prompt, response, domain, complies, policy (``name-version``); may be empty.
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
    return list_exchanges(rows, "response"), labels.dropna().tolist()


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


def choose_judges(
    pairs: pd.DataFrame,
    answers: pd.DataFrame,
    policy: Policy,
    *,
    folds: int,
    seed: int,
    labelled_by: Collection[str] = (),
) -> tuple[list[Oracle], dict[str, Any]]:
    """Choose the judges of the answers, and report how accurate they are.

    The rules judge where the policy has any; a classifier joins them where there are hand-set labels.
    Labelled answers of models matter: what people wrote does not show how a small model gets it wrong.
    Where a classifier has labelled the pairs, another one that learns from the same labels would share its
    errors, and is not chosen.

    Args:
        pairs: Pairs, with hand-set labels where there are any.
        answers: Labelled answers of models (see `labelled_answers`); may be empty.
        policy: The policy to judge by.
        folds: Folds of the classifier's cross-validation.
        seed: Seed of the folds.
        labelled_by: Kinds of the oracles that labelled the pairs.

    Returns:
        Judges, and the report: the classifier's cross-validated accuracy (over all labels, over the pairs'
        responses, over models' answers) and the rules' over models' answers, or why there is no classifier;
        and `quality`, the counts of `error_correction.JudgeQuality` by judge and domain.
    """
    if not policy.checked_rules:
        return [], {
            "judges": [],
            "note": "The policy has no machine-checkable rules: held-out pairs are scored instead.",
        }
    rules = RulesOracle()
    if "classifier" in labelled_by:
        return [rules], {"judges": ["rules"], "note": NOT_INDEPENDENT}
    written, written_labels = labelled_exchanges(pairs)
    generated, generated_labels = labelled_answers(answers, policy)
    rules_verdicts = [judgment.complies for judgment in rules(generated, policy)]
    quality = {"rules": _measure_by_domain(generated, rules_verdicts, generated_labels)}
    try:
        classifier, validation = fit_classifier(
            written + generated, written_labels + generated_labels, folds=folds, seed=seed
        )
    except ClassifierError as error:
        return [rules], {"judges": ["rules"], "note": f"No second judge: {error}", "quality": quality}
    correct = validation.correct  # out of fold, shape (N,): the written responses first
    # Where the classifier was right its verdict is the label, else the opposite.
    classifier_verdicts = [
        label if right else not label
        for label, right in zip(generated_labels, correct[len(written) :].tolist(), strict=True)
    ]
    quality["classifier"] = _measure_by_domain(generated, classifier_verdicts, generated_labels)
    report = {
        "judges": ["rules", "classifier"],
        "classifier": {
            "folds": validation.folds,
            "cross_validated": _accuracy(correct),
            "on_written_responses": _accuracy(correct[: len(written)]),
            "on_model_answers": _accuracy(correct[len(written) :]),
        },
        "rules": {"on_model_answers": _accuracy(_scored_correct(rules_verdicts, generated_labels))},
        "quality": quality,
    }
    return [rules, classifier], report


def _measure_by_domain(
    exchanges: Sequence[Exchange], verdicts: Sequence[bool | None], labels: Sequence[bool]
) -> dict[str, dict[str, int]]:
    """A judge's errors on labelled answers, by their domain; answers without one have the domain ``""``."""
    positions: dict[str, list[int]] = {}
    for position, exchange in enumerate(exchanges):
        positions.setdefault(exchange.domain or "", []).append(position)
    return {
        domain: asdict(measure_quality([verdicts[i] for i in members], [labels[i] for i in members]))
        for domain, members in positions.items()
    }


def _scored_correct(verdicts: Sequence[bool | None], labels: Sequence[bool]) -> np.ndarray:
    """Whether each verdict is right, without the answers that were left unscored."""
    scored = [
        verdict == label for verdict, label in zip(verdicts, labels, strict=True) if verdict is not None
    ]
    return np.array(scored, dtype=bool)


def _accuracy(correct: np.ndarray) -> dict[str, Any] | None:
    if not len(correct):
        return None
    interval = wilson_interval(int(correct.sum()), len(correct))
    return {"n": len(correct), "accuracy": float(correct.mean()), "interval": list(interval)}
