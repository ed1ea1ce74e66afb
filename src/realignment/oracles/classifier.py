"""A text classifier as judge: trained on labelled exchanges, not on the rules, with its errors measured."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from realignment.oracles.calibration import Calibration
from realignment.policy import Policy
from realignment.records import Exchange, Judgment, RealignmentError

TEMPLATE = "topic_{domain} {response}"
"""Default text of an exchange for the classifier: the topic as one word, then the response."""


class LabelPolicy(NamedTuple):
    """The policy that a classifier's labels were given under."""

    name: str
    fingerprint: str


class ClassifierError(RealignmentError):
    """The classifier cannot be trained, read or used."""


@dataclass(frozen=True)
class ClassifierOracle:
    """Judges by a fitted scikit-learn pipeline over the text; the verdict's probability is the confidence.

    It sees words of the response and the topic, not the rules' patterns, so it exposes a model that has
    learnt to satisfy the regular expressions alone.

    Attributes:
        pipeline: Fitted on texts, with `predict_proba`; its second class is "complies".
        name: Name of the oracle in reports.
        calibration: Corrects its probabilities; None: they are not corrected.
        template: Text of an exchange, a format string with the fields domain, prompt and response.
        held_out: Text → probability, for the texts that it was trained on, from the fold that held them out.
            A verdict on its own training data would otherwise be memorised.
        policy: The policy that its labels were given under; None: not checked.
    """

    pipeline: Any
    name: str = "classifier"
    calibration: Calibration | None = None
    template: str = TEMPLATE
    held_out: Mapping[str, float] = field(default_factory=dict)
    policy: LabelPolicy | None = None

    def __call__(self, exchanges: Sequence[Exchange], policy: Policy) -> list[Judgment]:
        """Return one judgment per exchange; confidence is the probability of the verdict.

        Raises:
            ClassifierError: The classifier's labels were given under another policy.
        """
        if not exchanges:
            return []
        check_policy(self.policy, policy)
        return to_judgments(self.predict_probability(exchanges), self.name)

    def predict_probability(self, exchanges: Sequence[Exchange]) -> npt.NDArray[np.float64]:
        """Return P(complies) of each exchange, calibrated, shape (n,)."""
        texts = [render(exchange, self.template) for exchange in exchanges]
        predicted = self.pipeline.predict_proba(texts)[:, 1]
        # Of texts that it was trained on, the out-of-fold probability.
        probability = np.array([self.held_out.get(text, p) for text, p in zip(texts, predicted, strict=True)])
        return probability if self.calibration is None else self.calibration(probability)


def check_policy(label_policy: LabelPolicy | None, policy: Policy) -> None:
    """Check that a classifier's labels were given under this policy, in its present wording.

    Args:
        label_policy: The policy that the labels were given under; None: not checked.
        policy: The policy to judge by.

    Raises:
        ClassifierError: The policies, or their wordings, differ.
    """
    if label_policy is None:
        return
    if label_policy.name != policy.full_name:
        raise ClassifierError(
            f"The classifier learnt from labels under {label_policy.name}, and is asked to judge by "
            f"{policy.full_name}. Label responses under the new policy, and train it again (`--pipelines "
            "train_classifier`)."
        )
    if label_policy.fingerprint != policy.fingerprint:
        raise ClassifierError(
            f"{policy.full_name} was edited since the classifier learnt (it was {label_policy.fingerprint}, "
            f"now it is {policy.fingerprint}), and kept its version. Label responses by what it says "
            "now, and train the classifier again (`--pipelines train_classifier`); where the edit does not "
            "matter, train it again with the same labels."
        )


def to_judgments(probability: npt.NDArray[np.float64], name: str) -> list[Judgment]:
    """Return judgments from P(complies), shape (n,): the likelier verdict, its probability as confidence."""
    return [
        Judgment(bool(p >= 0.5), float(max(p, 1 - p)), reason=f"P(complies) = {p:.2f}", oracle=name)
        for p in probability
    ]


def render(exchange: Exchange, template: str = TEMPLATE) -> str:
    """Return the text of an exchange for the classifier; the topic of an exchange without one is `any`."""
    domain = exchange.domain or "any"
    return template.format(domain=domain, prompt=exchange.prompt, response=exchange.response)


def build_pipeline(seed: int) -> Any:
    """Return an unfitted text classifier: TF-IDF of words and word pairs crossed with the topic, regression.

    Crossed, because the same words are right on one topic and wrong on another: a referral to a professional
    is what the policy asks for on health, and over-refusal in cooking.

    Args:
        seed: Seed of the regression.

    Returns:
        A scikit-learn pipeline of texts, made by `render`.
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
