"""Models that judge: fetched, loaded, and made the oracle that the parameters describe."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from realignment.model.fetching import fetch
from realignment.model.loading import load, own_chat_template
from realignment.model.store import ModelReference
from realignment.oracles.classifier import Learnt
from realignment.oracles.protocol import Oracle
from realignment.oracles.trained_classifier import is_trained, read_trained
from realignment.parameters import LocalLMParameters, TextClassifierParameters
from realignment.parameters.base import ModelParameters

if TYPE_CHECKING:  # needs torch, which takes seconds to import
    from realignment.oracles.local_lm import LocalLMOracle
    from realignment.oracles.sequence_classifier import SequenceClassifierOracle

_CPU_BUDGET, _GPU_BUDGET = 1024, 16384
"""Tokens of a batch of `local_lm`; more than 1024 gain nothing on a CPU, and small models lose."""


def load_local_lm(parameters: LocalLMParameters) -> "LocalLMOracle":
    """Fetch and load a model that judges.

    Raises:
        ModelError: It cannot be fetched or loaded.
        OracleError: It has no chat template, and is not asked as a guard model.
    """
    from realignment.oracles.local_lm import LocalLMOracle
    from realignment.oracles.questions import chat_question, guard_question

    reference, device, dtype = _resolve(parameters)
    model, tokenizer = load(reference.path, dtype=dtype, device=device)
    if parameters.template == "chat":
        tokenizer.chat_template = own_chat_template(tokenizer)
        question = chat_question(tokenizer)
    else:
        question = guard_question(tokenizer, parameters.template)
    return LocalLMOracle(
        model=model.eval(),
        tokenizer=tokenizer,
        question=question,
        name=f"local_lm {_short_name(parameters.source)}",
        identity=f"local_lm {reference.sha256} {dtype} {question.digest}",
        token_budget=parameters.token_budget or (_CPU_BUDGET if device == "cpu" else _GPU_BUDGET),
    )


def load_classifier(parameters: TextClassifierParameters) -> Oracle:
    """A classifier that `train_classifier` made, or a sequence classifier.

    Raises:
        ClassifierError: There is none, or its labels are not those that the parameters name.
        ModelError: The sequence classifier cannot be fetched.
    """
    source = Path(parameters.source)
    if not is_trained(source):
        return load_sequence(parameters)
    trained = read_trained(source)
    learnt = Learnt(trained.policy, trained.policy_digest)
    if trained.oracle is not None:
        return replace(trained.oracle, policy=learnt)
    assert trained.sequence_classifier is not None
    loaded = load_sequence(trained.sequence_classifier)
    return replace(loaded, calibration=trained.calibration, policy=learnt)


def load_sequence(parameters: TextClassifierParameters) -> "SequenceClassifierOracle":
    """Fetch and load a sequence classifier, without a calibration."""
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
    """The model as a local folder, and the device and precision to compute in."""
    from realignment.model.devices import choose_device, choose_dtype

    reference = fetch(
        parameters.source,
        folder=Path(parameters.folder),
        sha256=parameters.sha256,
        revision=parameters.revision,
    )
    device = choose_device(parameters.device)
    return reference, device, str(choose_dtype(parameters.dtype, device)).removeprefix("torch.")


def _short_name(source: str) -> str:
    return source.partition("#")[0].rstrip("/").rpartition("/")[2]
