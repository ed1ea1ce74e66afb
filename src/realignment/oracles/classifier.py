"""A text classifier as judge: trained on labelled exchanges, not on the rules, its own errors measured."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from realignment.policy import Policy
from realignment.records import Exchange, Judgment, RealignmentError


class ClassifierError(RealignmentError):
    """The classifier cannot be trained on these labels."""


@dataclass(frozen=True)
class ClassifierOracle:
    """A fitted scikit-learn pipeline over the text of the exchange; its probability is the confidence.

    It sees words of the response and the topic, not the rules' patterns: a model that
    learns to please the regular expressions alone is found out here.
    """

    pipeline: Any
    name: str = "classifier"

    def __call__(self, exchanges: Sequence[Exchange], policy: Policy) -> list[Judgment]:
        """One judgment per exchange; confidence is the probability of the verdict."""
        if not exchanges:
            return []
        probability = self.pipeline.predict_proba([render(exchange) for exchange in exchanges])[:, 1]
        return [
            Judgment(bool(p >= 0.5), float(max(p, 1 - p)), reason=f"P(complies) = {p:.2f}", oracle=self.name)
            for p in probability
        ]


@dataclass(frozen=True, slots=True)
class CrossValidation:
    """How good the classifier is on exchanges it was not trained on.

    Attributes:
        n: Labelled exchanges.
        folds: Folds, by prompt, so that both responses of a pair are in one fold.
        correct: Whether each held-out verdict was right, shape (n,).
    """

    n: int
    folds: int
    correct: np.ndarray

    @property
    def accuracy(self) -> float:
        """Share of right verdicts."""
        return float(self.correct.mean())


def render(exchange: Exchange) -> str:
    """What the classifier reads: the topic as one word, then the response."""
    return f"topic_{exchange.domain or 'any'} {exchange.response}"


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
    exchanges: Sequence[Exchange], labels: Sequence[bool], *, folds: int, seed: int
) -> tuple[ClassifierOracle, CrossValidation]:
    """Fit on all labelled exchanges, and measure by cross-validation grouped by prompt.

    Raises:
        ClassifierError: Too few prompts with a complying, or with a violating, response for the folds.
    """
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict

    truth = np.asarray(labels, dtype=bool)
    groups = [exchange.prompt for exchange in exchanges]
    # Folds are made of prompts, so prompts are what must suffice for both kinds to be in every training fold.
    prompts = [{g for g, label in zip(groups, truth, strict=True) if label == kind} for kind in (True, False)]
    rarest = min(map(len, prompts))
    if rarest < folds:
        raise ClassifierError(
            f"The classifier needs complying responses to at least {folds} prompts and violating ones to "
            f"{folds} to be trained and cross-validated; the rarer kind has {rarest} prompts, of "
            f"{len(truth)} labelled responses in all. Label more, or lower `evaluation.folds`."
        )
    texts = [render(exchange) for exchange in exchanges]
    splitter = StratifiedGroupKFold(n_splits=folds, shuffle=True, random_state=seed)
    predicted = cross_val_predict(build_pipeline(seed), texts, truth, groups=groups, cv=splitter)
    fitted = build_pipeline(seed).fit(texts, truth)
    return ClassifierOracle(fitted), CrossValidation(len(truth), folds, predicted == truth)
