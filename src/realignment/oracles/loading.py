"""Fetch and load the models of oracles, as the parameters describe them."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from realignment.model.fetching import fetch_model
from realignment.model.loading import load_model, own_chat_template
from realignment.model.store import ModelReference
from realignment.oracles.classifier import LabelPolicy
from realignment.oracles.protocol import Oracle
from realignment.oracles.trained_classifier import is_trained, read_trained_classifier
from realignment.parameters import LocalLMParameters, TextClassifierParameters
from realignment.parameters.base import ModelParameters

if TYPE_CHECKING:  # needs torch, which takes seconds to import
    from realignment.oracles.local_lm import LocalLMOracle
    from realignment.oracles.sequence_classifier import SequenceClassifierOracle

_CPU_BUDGET = 1024
"""Tokens of a batch of `local_lm`; on a CPU larger batches are not faster, and with small models slower."""
_GPU_BUDGET = 16384
"""The same on a GPU."""


def load_local_lm(parameters: LocalLMParameters) -> "LocalLMOracle":
    """Fetch and load a language model that judges.

    Args:
        parameters: Source, template, device and precision.

    Returns:
        The oracle, in evaluation mode on its device.

    Raises:
        ModelError: The model cannot be fetched or loaded.
        OracleError: It has no chat template, and no template of a guard model is named.
    """
    from realignment.oracles.local_lm import LocalLMOracle
    from realignment.oracles.questions import build_chat_question, build_guard_question

    reference, device, dtype = _resolve(parameters)
    model, tokenizer = load_model(reference.path, dtype=dtype, device=device)
    if parameters.template == "chat":
        tokenizer.chat_template = own_chat_template(tokenizer)
        question = build_chat_question(tokenizer)
    else:
        question = build_guard_question(tokenizer, parameters.template)
    return LocalLMOracle(
        model=model.eval(),
        tokenizer=tokenizer,
        question=question,
        name=f"local_lm {_short_name(parameters.source)}",
        identity=f"local_lm {reference.sha256} {dtype} {question.digest}",
        token_budget=parameters.token_budget or (_CPU_BUDGET if device == "cpu" else _GPU_BUDGET),
    )


def load_classifier(parameters: TextClassifierParameters) -> Oracle:
    """Load a classifier that `train_classifier` made, or fetch and load a sequence classifier.

    Args:
        parameters: Source and settings.

    Returns:
        The oracle; of a trained classifier with its calibration and the policy of its labels.

    Raises:
        ClassifierError: There is none, or its labels are not those that the parameters name.
        ModelError: The sequence classifier cannot be fetched.
    """
    source = Path(parameters.source)
    if not is_trained(source):
        return fetch_sequence_classifier(parameters)
    trained = read_trained_classifier(source)
    label_policy = LabelPolicy(trained.policy, trained.policy_digest)
    if trained.oracle is not None:
        return replace(trained.oracle, policy=label_policy)
    assert trained.sequence_classifier is not None
    oracle = fetch_sequence_classifier(trained.sequence_classifier)
    return replace(oracle, calibration=trained.calibration, policy=label_policy)


def fetch_sequence_classifier(parameters: TextClassifierParameters) -> "SequenceClassifierOracle":
    """Fetch and load a sequence classifier, and return its oracle without a calibration."""
    from realignment.oracles.sequence_classifier import load_sequence_classifier

    reference, device, dtype = _resolve(parameters)
    return load_sequence_classifier(
        reference.path,
        complies_labels=parameters.complies_labels,
        template=parameters.template,
        max_length=parameters.max_length,
        batch_size=parameters.batch_size,
        dtype=dtype,
        device=device,
        name=f"sequence_classifier {_short_name(parameters.source)}",
    )


def _resolve(parameters: ModelParameters) -> tuple[ModelReference, str, str]:
    """Return the model as a local folder, its device, and its precision."""
    from realignment.model.devices import choose_device, choose_dtype

    reference = fetch_model(
        parameters.source,
        folder=Path(parameters.folder),
        sha256=parameters.sha256,
        revision=parameters.revision,
    )
    device = choose_device(parameters.device)
    return reference, device, str(choose_dtype(parameters.dtype, device)).removeprefix("torch.")


def _short_name(source: str) -> str:
    """Return the last part of a path, address or Hub id."""
    return source.partition("#")[0].rstrip("/").rpartition("/")[2]
