"""A text classifier as judge: trained on labelled exchanges, not on the rules, its own errors measured."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from realignment.oracles.calibration import Calibration, Method, fit_calibration
from realignment.policy import Policy
from realignment.records import Exchange, Judgment, RealignmentError

TEMPLATE = "topic_{domain} {response}"
"""What the classifier reads unless told otherwise: the topic as one word, then the response."""


class Learnt(NamedTuple):
    """The policy that a classifier's labels were given under."""

    name: str
    fingerprint: str


class ClassifierError(RealignmentError):
    """The classifier cannot be trained on these labels."""


@dataclass(frozen=True)
class ClassifierOracle:
    """A fitted scikit-learn pipeline over the text of the exchange; its probability is the confidence.

    It sees words of the response and the topic, not the rules' patterns: a model that
    learns to please the regular expressions alone is found out here.

    Attributes:
        pipeline: Fitted on texts, with `predict_proba`; its second class is "complies".
        name: What reports call it.
        calibration: Corrects its probabilities; None: they are taken as they are.
        template: What it reads of an exchange.
        held_out: Text → probability, for the texts that it was trained on: what it said in the fold that did
            not know them. A verdict on its own training data would otherwise be a memory.
        policy: That its labels were given under; None: whoever made it sees to that.
    """

    pipeline: Any
    name: str = "classifier"
    calibration: Calibration | None = None
    template: str = TEMPLATE
    held_out: Mapping[str, float] = field(default_factory=dict)
    policy: Learnt | None = None

    def __call__(self, exchanges: Sequence[Exchange], policy: Policy) -> list[Judgment]:
        """One judgment per exchange; confidence is the probability of the verdict.

        Raises:
            ClassifierError: Its labels were given under another policy.
        """
        if not exchanges:
            return []
        check_policy(self.policy, policy)
        return verdicts(self.probability(exchanges), self.name)

    def probability(self, exchanges: Sequence[Exchange]) -> npt.NDArray[np.float64]:
        """P(complies) of each exchange, calibrated, shape (n,)."""
        texts = [render(exchange, self.template) for exchange in exchanges]
        fresh = self.pipeline.predict_proba(texts)[:, 1]
        probability = np.array([self.held_out.get(text, p) for text, p in zip(texts, fresh, strict=True)])
        return probability if self.calibration is None else self.calibration(probability)


def check_policy(learnt: Learnt | None, asked: Policy) -> None:
    """Labels of another policy, or of what this one said before it was edited, teach nothing of it.

    Raises:
        ClassifierError: The policies differ.
    """
    if learnt is None:
        return
    if learnt.name != asked.full_name:
        raise ClassifierError(
            f"The classifier learnt from labels under {learnt.name}, and is asked to judge by "
            f"{asked.full_name}. Label responses under the new policy, and train it again (`--pipelines "
            "train_classifier`)."
        )
    if learnt.fingerprint != asked.fingerprint:
        raise ClassifierError(
            f"{asked.full_name} was edited since the classifier learnt (it was {learnt.fingerprint}, now it "
            f"is {asked.fingerprint}), and kept its version. Label responses by what it says now, and train "
            "the classifier again (`--pipelines train_classifier`); where the edit does not matter, train it "
            "again with the same labels."
        )


def verdicts(probability: npt.NDArray[np.float64], name: str) -> list[Judgment]:
    """Judgments from P(complies): the likelier verdict, with its probability as confidence."""
    return [
        Judgment(bool(p >= 0.5), float(max(p, 1 - p)), reason=f"P(complies) = {p:.2f}", oracle=name)
        for p in probability
    ]


@dataclass(frozen=True, slots=True)
class CrossValidation:
    """How good the classifier is on exchanges it was not trained on.

    Attributes:
        n: Labelled exchanges.
        folds: Folds, by prompt, so that both responses of a pair are in one fold.
        correct: Whether each held-out verdict was right, shape (n,).
        raw: P(complies) by the fold that did not know the exchange, shape (n,).
        calibrated: The same, corrected by a calibration that did not know its fold, shape (n,).
        fold: Which fold each exchange is in, from 0, shape (n,).
    """

    n: int
    folds: int
    correct: npt.NDArray[np.bool_]
    raw: npt.NDArray[np.float64]
    calibrated: npt.NDArray[np.float64]
    fold: npt.NDArray[np.int64]

    @property
    def accuracy(self) -> float:
        """Share of right verdicts."""
        return float(self.correct.mean())


def render(exchange: Exchange, template: str = TEMPLATE) -> str:
    """What the classifier reads; a topic that is not known is `any`."""
    domain = exchange.domain or "any"
    return template.format(domain=domain, prompt=exchange.prompt, response=exchange.response)


def build_pipeline(seed: int) -> Any:
    """An unfitted text classifier: TF-IDF of words and word pairs crossed with the topic, then regression.

    Crossed, because the same words are right on one topic and wrong on another: a referral to a professional
    is what the policy asks for on health, and over-refusal in cooking.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    words = TfidfVectorizer(
        ngram_range=(1, 2), min_df=2, binary=True, preprocessor=_cross, token_pattern=r"\S+"
    )
    return make_pipeline(words, LogisticRegression(C=30.0, max_iter=2000, random_state=seed))


def _cross(text: str) -> str:
    """``topic_law You ask.`` → ``topic_law_you topic_law_ask``."""
    topic, _, response = text.lower().partition(" ")
    return " ".join(f"{topic}_{word}" for word in re.findall(r"[\w']+", response))


def train_classifier(
    exchanges: Sequence[Exchange],
    labels: Sequence[bool],
    *,
    folds: int,
    seed: int,
    build: Callable[[int], Any] = build_pipeline,
    template: str = TEMPLATE,
    calibration: Method | None = None,
) -> tuple[ClassifierOracle, CrossValidation]:
    """Fit on all labelled exchanges, and measure by cross-validation grouped by prompt.

    Args:
        exchanges: Labelled.
        labels: Whether each complies.
        folds: Of the cross-validation.
        seed: Of the folds and the pipeline.
        build: Makes an unfitted pipeline from the seed.
        template: What the classifier reads.
        calibration: How its probabilities are corrected; None: not at all.

    Raises:
        ClassifierError: Too few prompts with a complying, or with a violating, response for the folds.
    """
    truth = np.asarray(labels, dtype=bool)
    splits = split_by_prompt(exchanges, truth, folds=folds, seed=seed)
    texts = np.array([render(exchange, template) for exchange in exchanges], dtype=object)
    raw = np.empty(len(texts))
    for known, unknown in splits:
        raw[unknown] = (
            build(seed).fit(list(texts[known]), truth[known]).predict_proba(list(texts[unknown]))[:, 1]
        )
    fitted = build(seed).fit(list(texts), truth)
    validation = cross_validate(raw, truth, splits, calibration)
    corrected = None if calibration is None else fit_calibration(calibration, raw, truth)
    held_out = {} if calibration is None else dict(zip(texts, map(float, raw), strict=True))
    return ClassifierOracle(fitted, calibration=corrected, template=template, held_out=held_out), validation


Splits = list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]
"""Per fold: positions of the exchanges to learn from, and of those held out."""


def split_by_prompt(
    exchanges: Sequence[Exchange], truth: npt.NDArray[np.bool_], *, folds: int, seed: int
) -> Splits:
    """Folds made of prompts, with both kinds in the training part of every one.

    Raises:
        ClassifierError: Too few prompts with a complying, or with a violating, response.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    groups = [exchange.prompt for exchange in exchanges]
    # Folds are made of prompts, so prompts are what must suffice for both kinds to be in every training fold.
    prompts = [{g for g, label in zip(groups, truth, strict=True) if label == kind} for kind in (True, False)]
    rarest = min(map(len, prompts))
    if rarest < folds:
        raise ClassifierError(
            f"The classifier needs complying responses to at least {folds} prompts and violating ones to "
            f"{folds} to be trained and cross-validated; the rarer kind has {rarest} prompts, of "
            f"{len(truth)} labelled responses in all. Label more, or lower `evaluation.folds` (of the "
            "judge) or "
            "`classifier.folds` (of the oracle)."
        )
    splitter = StratifiedGroupKFold(n_splits=folds, shuffle=True, random_state=seed)
    return list(splitter.split(np.zeros(len(truth)), truth, groups))


def cross_validate(
    raw: npt.NDArray[np.float64], truth: npt.NDArray[np.bool_], splits: Splits, calibration: Method | None
) -> CrossValidation:
    """Held-out probabilities measured against the truth; each fold is corrected by what the others taught."""
    calibrated, fold = raw.copy(), np.empty(len(raw), dtype=np.int64)
    for number, (known, unknown) in enumerate(splits):
        fold[unknown] = number
        if calibration is not None:
            calibrated[unknown] = fit_calibration(calibration, raw[known], truth[known])(raw[unknown])
    return CrossValidation(len(truth), len(splits), (calibrated >= 0.5) == truth, raw, calibrated, fold)
