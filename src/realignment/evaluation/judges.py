"""Choose who judges the answers, measure them on labelled answers of models, pick the headline's."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from realignment.evaluation.error_correction import add_domains, measure_quality
from realignment.evaluation.labelled import labelled_answers
from realignment.evaluation.measures import HEADLINE_KINDS
from realignment.oracles import Oracle
from realignment.oracles.classifier import ClassifierError
from realignment.oracles.cross_validation import fit_uncalibrated, split_by_prompt, validate_classifier
from realignment.oracles.factory import build_oracle
from realignment.oracles.rules import RulesOracle
from realignment.parameters import EvaluationParameters, JudgingParameters
from realignment.policy import Policy
from realignment.records import DataError, Exchange
from realignment.statistics import wilson_interval

NOT_INDEPENDENT = (
    "No classifier is fitted as a judge: a classifier labelled the pairs, and another that learns from "
    "labels of the same people would share its errors. Have people judge a sample of the answers."
)
NO_JUDGE = (
    "No judge: the policy has no machine-checkable rules, `evaluation.judges` names none, and no classifier "
    "can be fitted. Held-out pairs are scored instead."
)
LABELLED_THE_PAIRS = (
    "It labelled the training pairs: the model was trained on its errors, so that it may overrate the model."
)
LEARNED_FROM_A_FILE = (
    "It learned from labelled texts in a file. If these are the pairs' responses, the model was trained to "
    "imitate some of them."
)


def can_judge(
    answers: pd.DataFrame, policy: Policy, judging: JudgingParameters, parameters: EvaluationParameters
) -> bool:
    """Return whether anything can judge free answers under this policy, without loading a judge.

    Args:
        answers: Labelled answers of models (see `labelled.labelled_answers`); may be empty.
        policy: The policy to judge by.
        judging: The oracle that labelled the pairs.
        parameters: Names the judges.

    Returns:
        True where `build_judges` finds a judge.

    Raises:
        NoRulesError: `rules` are named as a judge, and the policy has none that a machine can check.
    """
    named = [leaf.oracle for settings in parameters.judges or () for leaf in settings.leaf_oracles()]
    if "rules" in named:
        RulesOracle()([], policy)  # raises before answers are generated, not after
    if parameters.judges or (parameters.judges is None and policy.checked_rules):
        return True
    if not parameters.fit_classifier or _labelled_by_classifier(judging):
        return False
    exchanges, labels = labelled_answers(answers, policy)
    try:
        split_by_prompt(exchanges, np.array(labels, dtype=bool), folds=parameters.folds, seed=0)
    except ClassifierError:
        return False
    return True


@dataclass(frozen=True)
class Judges:
    """The judges of the answers.

    Attributes:
        named: Oracles of the parameters, or the policy's rules.
        fitted: The classifier that learned from the labelled answers; None: there is none.
        seen: Judge → what it has seen of the training data, where its reader must know.
        note: Why there is no judge, or no fitted classifier; empty where there is nothing to say.
    """

    named: tuple[Oracle, ...]
    fitted: Oracle | None
    seen: Mapping[str, str]
    note: str = ""

    @property
    def oracles(self) -> tuple[Oracle, ...]:
        """All judges, the fitted classifier last."""
        return self.named if self.fitted is None else (*self.named, self.fitted)


def build_judges(
    answers: pd.DataFrame,
    policy: Policy,
    *,
    judging: JudgingParameters,
    parameters: EvaluationParameters,
    seed: int,
) -> Judges:
    """Build the judges of the answers; what each has seen is known, how often it is right is not yet.

    The fitted classifier learns from labelled answers *of models* under this policy alone. Labels of the
    pairs made the splits, and the model was trained to imitate the pairs' texts, so that a judge that learns
    from them is not independent.

    Args:
        answers: Labelled answers of models (see `labelled.labelled_answers`); may be empty.
        policy: The policy to judge by.
        judging: The oracle that labelled the pairs; its verdict store keeps the verdicts of judges too.
        parameters: `judges` (null: the rules, where the policy has any), `fit_classifier` and `folds`.
        seed: Seed of the classifier.

    Returns:
        The judges.

    Raises:
        DataError: Two judges have the same name.
    """
    named: list[Oracle] = []
    seen: dict[str, str] = {}
    for settings in _list_judges(policy, judging, parameters):
        oracle = build_oracle(settings)
        named.append(oracle)
        if flag := _describe_seen(settings, judging):
            seen[oracle.name] = flag
    fitted, note = None, ""
    if parameters.fit_classifier:
        fitted, note = _fit(answers, policy, judging, folds=parameters.folds, seed=seed)
    judges = Judges(tuple(named), fitted, seen, note)
    _check_names([oracle.name for oracle in judges.oracles])
    return judges if judges.oracles else replace(judges, note=f"{NO_JUDGE} {note}".strip())


def measure_judges(
    judges: Judges, answers: pd.DataFrame, policy: Policy, *, folds: int, seed: int
) -> dict[str, Any]:
    """Measure the judges on labelled answers, and report what each has seen and how often it is right.

    A judge is measured on answers *of models* under this policy: what people wrote does not show how a small
    model gets it wrong. The fitted classifier is measured by cross-validation, for it has learned from them.

    Args:
        judges: From `build_judges`.
        answers: Labelled answers of models (see `labelled.labelled_answers`); may be empty.
        policy: The policy to judge by.
        folds: Number of folds of the cross-validation.
        seed: Seed of the folds and of the classifier.

    Returns:
        `judges` (names); `seen`, what a judge has seen that its reader must know; `accuracy` on the labelled
        answers; `quality`, the counts of `error_correction.JudgeQuality` by judge and domain; and, where
        there is something to say, `note`.
    """
    exchanges, labels = labelled_answers(answers, policy)
    verdicts = {
        oracle.name: [judgment.complies for judgment in oracle(exchanges, policy)] for oracle in judges.named
    }
    if judges.fitted is not None:
        correct = validate_classifier(exchanges, labels, folds=folds, seed=seed).correct
        # Where the classifier was right its verdict is the label, else the opposite.
        verdicts[judges.fitted.name] = [
            label if right else not label for label, right in zip(labels, correct, strict=True)
        ]
    report: dict[str, Any] = {
        "judges": list(verdicts),
        "seen": dict(judges.seen),
        "accuracy": {name: _measure_accuracy(found, labels) for name, found in verdicts.items()},
        "quality": {name: _measure_by_domain(exchanges, found, labels) for name, found in verdicts.items()},
    }
    return report | ({"note": judges.note} if judges.note else {})


def _list_judges(
    policy: Policy, judging: JudgingParameters, parameters: EvaluationParameters
) -> list[JudgingParameters]:
    """The judges that are named, or the rules where none is; each with the store of the verdicts."""
    if parameters.judges is None:
        return [JudgingParameters(oracle="rules")] if policy.checked_rules else []
    store = {"verdict_store": judging.verdict_store}
    return [
        settings if settings.verdict_store else settings.model_copy(update=store)
        for settings in parameters.judges
    ]


def _describe_seen(settings: JudgingParameters, judging: JudgingParameters) -> str:
    """What this judge has seen of the training data; empty where it has seen nothing."""
    labelling = {leaf.dump_own_section() for leaf in judging.leaf_oracles()}
    leaves = settings.leaf_oracles()
    if labelling & {leaf.dump_own_section() for leaf in leaves}:
        return LABELLED_THE_PAIRS
    return LEARNED_FROM_A_FILE if any(leaf.oracle == "classifier" for leaf in leaves) else ""


def _labelled_by_classifier(judging: JudgingParameters) -> bool:
    return any(leaf.oracle == "classifier" for leaf in judging.leaf_oracles())


def _fit(
    answers: pd.DataFrame, policy: Policy, judging: JudgingParameters, *, folds: int, seed: int
) -> tuple[Oracle | None, str]:
    """The classifier that learned from the labelled answers, or why there is none."""
    if _labelled_by_classifier(judging):
        return None, NOT_INDEPENDENT
    exchanges, labels = labelled_answers(answers, policy)
    try:
        return fit_uncalibrated(exchanges, labels, folds=folds, seed=seed), ""
    except ClassifierError as error:
        return None, f"No classifier is fitted as a judge: {error}"


def _check_names(names: Sequence[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(
            f"Several judges have the name {', '.join(twice)}. Leave one out of `evaluation.judges`; a saved "
            "`classifier` and the one that is fitted here also share a name: set `fit_classifier: false`."
        )


def pick_headlines(
    answers: pd.DataFrame, report: Mapping[str, Any]
) -> dict[str, dict[str, str | float | int | None]]:
    """Pick the judge of each headline figure: the best measured on the kind of prompt that it is about.

    Best is the largest Youden index J = sensitivity + specificity − 1 on labelled answers of the prompts'
    domains: accuracy would favour a judge that says what most of these answers are. Never is it the judge
    with the highest figure.

    Args:
        answers: Prompts with their kind and domain.
        report: From `measure_judges`.

    Returns:
        Metric → judge, sensitivity, specificity, and n (labelled answers). Where no judge has labels enough,
        the first that has seen nothing of the training data, else the first, with null figures. Empty
        without judges.
    """
    headlines: dict[str, dict[str, str | float | int | None]] = {}
    names: list[str] = report["judges"]
    if not names:
        return headlines
    for metric, kinds in HEADLINE_KINDS.items():
        domains = set(answers.loc[answers["kind"].isin(kinds), "domain"].fillna(""))
        qualities = {name: add_domains(report["quality"][name], domains) for name in names}
        measured = [name for name in names if qualities[name].has_labels]
        if measured:
            best = max(measured, key=lambda name: qualities[name].youden)
            quality = qualities[best]
            headlines[metric] = {
                "judge": best,
                "sensitivity": quality.sensitivity,
                "specificity": quality.specificity,
                "n": quality.complying + quality.violating,
            }
        else:
            unflagged = [name for name in names if name not in report["seen"]]
            first = (unflagged or names)[0]
            headlines[metric] = {"judge": first, "sensitivity": None, "specificity": None, "n": 0}
    return headlines


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


def _measure_accuracy(verdicts: Sequence[bool | None], labels: Sequence[bool]) -> dict[str, Any] | None:
    """Accuracy over the answers that the judge scored; None without any."""
    scored = [
        verdict == label for verdict, label in zip(verdicts, labels, strict=True) if verdict is not None
    ]
    if not scored:
        return None
    interval = wilson_interval(sum(scored), len(scored))
    return {"n": len(scored), "accuracy": sum(scored) / len(scored), "interval": list(interval)}
