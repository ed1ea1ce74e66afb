"""Any sequence classifier of transformers as judge: guard models, toxicity models, one's own."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from realignment.oracles.calibration import Calibration
from realignment.oracles.classifier import ClassifierError, LabelPolicy, check_policy, render, to_judgments
from realignment.policy import Policy
from realignment.records import Exchange, Judgment


@dataclass(frozen=True)
class SequenceClassifierOracle:
    """Judges by a sequence classifier: P(complies) is the probability of the labels that mean "complies".

    Where the model gives every label a probability of its own (multi-label), it is one minus the largest
    probability of the other labels.

    Attributes:
        model: A `…ForSequenceClassification`, in eval mode, on its device.
        tokenizer: The model's own; of a text that is too long it keeps the end, where the response is.
        complies: Which outputs mean "complies", shape (labels,).
        template: Text of an exchange, a format string with the fields domain, prompt and response.
        max_length: Tokens of a text, at most.
        batch_size: Texts of a batch.
        name: Name of the oracle in reports.
        calibration: Corrects its probabilities; None: they are not corrected.
        policy: The policy that the calibration's labels were given under; None: not checked.
    """

    model: Any
    tokenizer: Any
    complies: npt.NDArray[np.bool_]
    template: str
    max_length: int
    batch_size: int
    name: str
    calibration: Calibration | None = None
    policy: LabelPolicy | None = None

    def __call__(self, exchanges: Sequence[Exchange], policy: Policy) -> list[Judgment]:
        """Return one judgment per exchange; confidence is the probability of the verdict."""
        check_policy(self.policy, policy)
        return to_judgments(self.predict_probability(exchanges), self.name) if exchanges else []

    def predict_probability(self, exchanges: Sequence[Exchange]) -> npt.NDArray[np.float64]:
        """Return P(complies) of each exchange, shape (n,)."""
        import torch

        texts = [render(exchange, self.template) for exchange in exchanges]
        # Longest first: texts of similar length need little padding, and memory is short at once or never.
        order = sorted(range(len(texts)), key=lambda place: len(texts[place]), reverse=True)
        probability = np.empty(len(texts))
        for start in range(0, len(order), self.batch_size):
            batch = order[start : start + self.batch_size]
            inputs = self.tokenizer(
                [texts[place] for place in batch],
                truncation=True,
                max_length=self.max_length,
                padding=True,
                return_tensors="pt",
            ).to(self.model.device)
            with torch.inference_mode():
                logits = self.model(**inputs).logits.float().cpu().numpy()  # (B, labels)
            probability[batch] = self._sum_complying(logits)
        return probability if self.calibration is None else self.calibration(probability)

    def _sum_complying(self, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Return P(complies), shape (B,), from logits of shape (B, labels)."""
        if self.model.config.problem_type == "multi_label_classification" or logits.shape[1] == 1:
            probabilities = 1 / (1 + np.exp(-logits.astype(float)))
            if self.complies.all():
                return np.asarray(probabilities[:, self.complies].max(axis=1))
            return np.asarray(1 - probabilities[:, ~self.complies].max(axis=1))
        # Softmax, less the largest logit against overflow.
        weights = np.exp(logits.astype(float) - logits.max(axis=1, keepdims=True))
        return np.asarray(weights[:, self.complies].sum(axis=1) / weights.sum(axis=1))


def load_sequence_classifier(
    path: str,
    *,
    complies_labels: Sequence[str],
    template: str,
    max_length: int,
    batch_size: int,
    dtype: str,
    device: str,
    name: str,
) -> SequenceClassifierOracle:
    """Load a sequence classifier from a `save_pretrained` folder.

    Args:
        path: The folder.
        complies_labels: The model's labels that mean "complies".
        template: Text of an exchange.
        max_length: Tokens of a text, at most.
        batch_size: Texts of a batch.
        dtype: Precision, such as float32.
        device: Device to compute on.
        name: Name of the oracle in reports.

    Returns:
        The oracle, without a calibration.

    Raises:
        ClassifierError: It is no sequence classifier, or has other labels than those that are to mean
            "complies".
    """
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

    try:
        config = AutoConfig.from_pretrained(path)
    except (OSError, ValueError) as error:
        raise ClassifierError(f"{path} has no readable config.json: {error}") from error
    kinds = [str(kind) for kind in config.architectures or ()]
    if not any(kind.endswith("ForSequenceClassification") for kind in kinds):
        raise ClassifierError(
            f"{path} is no sequence classifier: its config says {', '.join(kinds) or 'nothing'}, expected "
            "…ForSequenceClassification. A guard model that generates text is asked by `oracle: local_lm`."
        )
    complies = find_complying_outputs(config.id2label, complies_labels, path)
    tokenizer = AutoTokenizer.from_pretrained(path, truncation_side="left")
    model = AutoModelForSequenceClassification.from_pretrained(path, dtype=dtype).to(device).eval()
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
        model.config.pad_token_id = tokenizer.pad_token_id
    return SequenceClassifierOracle(model, tokenizer, complies, template, max_length, batch_size, name)


def find_complying_outputs(
    id2label: dict[int, str], complies_labels: Sequence[str], source: str
) -> npt.NDArray[np.bool_]:
    """Find the outputs that mean "complies".

    Args:
        id2label: The model's labels by output.
        complies_labels: The labels that mean "complies".
        source: Name of the model, for messages.

    Returns:
        Whether each output means "complies", in the model's order, shape (labels,).

    Raises:
        ClassifierError: A label is not the model's, none is named, or every one is (of several).
    """
    labels = [str(id2label[place]) for place in sorted(id2label)]
    unknown = sorted(set(complies_labels) - set(labels))
    names_all = len(labels) > 1 and set(complies_labels) == set(labels)
    if unknown or not complies_labels or names_all:
        named = f"{', '.join(unknown)}: no label of it" if unknown else ", ".join(complies_labels) or "none"
        raise ClassifierError(
            f"The classifier {source} has the labels {', '.join(labels)}; `complies_labels` names {named}. "
            "Name those that mean that a response complies, and leave at least one that means that it "
            "violates."
        )
    return np.array([label in complies_labels for label in labels])
