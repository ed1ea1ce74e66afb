"""Any sequence classifier of transformers as judge: guard models, toxicity models, one's own."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from realignment.oracles.calibration import Calibration
from realignment.oracles.classifier import ClassifierError, Learnt, check_policy, render, verdicts
from realignment.policy import Policy
from realignment.records import Exchange, Judgment


@dataclass(frozen=True)
class SequenceClassifierOracle:
    """P(complies) is the probability of the labels that mean so.

    Where the model gives every label a probability of its own (multi-label), it is that of none of the
    others: one minus the largest of them.

    Attributes:
        model: A `…ForSequenceClassification`, in eval mode, on its device.
        tokenizer: Its own; of a text that is too long it keeps the end, where the response is.
        complies: Which outputs mean "complies", shape (labels,).
        template: What it reads of an exchange.
        max_length: Tokens that it reads.
        batch_size: Texts at a time.
        name: What reports call it.
        calibration: Corrects its probabilities.
        policy: That the calibration's labels were given under.
    """

    model: Any
    tokenizer: Any
    complies: npt.NDArray[np.bool_]
    template: str
    max_length: int
    batch_size: int
    name: str
    calibration: Calibration | None = None
    policy: Learnt | None = None

    def __call__(self, exchanges: Sequence[Exchange], policy: Policy) -> list[Judgment]:
        """One judgment per exchange; confidence is the probability of the verdict."""
        check_policy(self.policy, policy)
        return verdicts(self.probability(exchanges), self.name) if exchanges else []

    def probability(self, exchanges: Sequence[Exchange]) -> npt.NDArray[np.float64]:
        """P(complies) of each exchange, shape (n,)."""
        import torch

        texts = [render(exchange, self.template) for exchange in exchanges]
        order = sorted(range(len(texts)), key=lambda place: len(texts[place]), reverse=True)
        found = np.empty(len(texts))
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
                found[batch] = self._complies(self.model(**inputs).logits.float().cpu().numpy())
        return found if self.calibration is None else self.calibration(found)

    def _complies(self, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        if self.model.config.problem_type == "multi_label_classification" or logits.shape[1] == 1:
            each = 1 / (1 + np.exp(-logits.astype(float)))
            return np.asarray(
                each[:, self.complies].max(axis=1)
                if self.complies.all()
                else 1 - each[:, ~self.complies].max(axis=1)
            )
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
    """From a `save_pretrained` folder.

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
    complies = read_labels(config.id2label, complies_labels, path)
    tokenizer = AutoTokenizer.from_pretrained(path, truncation_side="left")
    model = AutoModelForSequenceClassification.from_pretrained(path, dtype=dtype).to(device).eval()
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
        model.config.pad_token_id = tokenizer.pad_token_id
    return SequenceClassifierOracle(model, tokenizer, complies, template, max_length, batch_size, name)


def read_labels(id2label: dict[int, str], wanted: Sequence[str], source: str) -> npt.NDArray[np.bool_]:
    """Which outputs mean "complies", in the model's order.

    Raises:
        ClassifierError: A wanted label is not the model's, none is wanted, or every one is (of several).
    """
    labels = [str(id2label[place]) for place in sorted(id2label)]
    unknown = sorted(set(wanted) - set(labels))
    if unknown or not wanted or (len(labels) > 1 and set(wanted) == set(labels)):
        found = f"{', '.join(unknown)}: no label of it" if unknown else f"{', '.join(wanted) or 'none'}"
        raise ClassifierError(
            f"The classifier {source} has the labels {', '.join(labels)}; `complies_labels` names {found}. "
            "Name "
            "those that mean that a response complies, and leave at least one that means that it violates."
        )
    return np.array([label in wanted for label in labels])
