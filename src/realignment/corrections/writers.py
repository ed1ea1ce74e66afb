"""Models that write corrections: the reference model in this process, or any model behind a chat server."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from realignment.model.fetching import fetch_model
from realignment.parameters import ChatParameters, CorrectionsParameters, OracleParameters
from realignment.parameters.base import ModelParameters
from realignment.records import RealignmentError

logger = logging.getLogger(__name__)

Chat = list[dict[str, str]]

LOOKUP_ORACLES = {
    "labels": "labels that come with the data",
    "human": "people's verdicts on the texts that they were shown",
}
"""Oracles that do not read a text, and what they look up instead."""


class WriterError(RealignmentError):
    """A writer that cannot be used with its verifier."""


@dataclass(frozen=True, slots=True)
class Draft:
    """One answer of a writer.

    Attributes:
        text: The answer.
        complete: Whether it ended by itself and was not cut off at a limit.
    """

    text: str
    complete: bool


class Writer(Protocol):
    """Anything that answers chats."""

    @property
    def name(self) -> str:
        """The writer's name in reports."""
        ...

    @property
    def model(self) -> str:
        """The model and its version."""
        ...

    def __call__(self, chats: Sequence[Chat]) -> list[Draft]:
        """Return one draft per chat, in order; a chat that repeats gets another draft each time."""
        ...


@dataclass(frozen=True)
class ModelWriter:
    """A causal language model in this process; it is loaded when it is called."""

    path: str
    model: str
    model_parameters: ModelParameters
    parameters: CorrectionsParameters
    seed: int
    name: str = "model"

    def __call__(self, chats: Sequence[Chat]) -> list[Draft]:
        """Sample an answer to every chat, in batches."""
        from realignment.model.generation import Sampling, generate_answers
        from realignment.model.loading import load_configured_model

        model, tokenizer = load_configured_model(self.path, self.model_parameters)
        if not supports_system_turn(tokenizer):
            chats = [fold_system_turn(chat) for chat in chats]
        parameters = self.parameters
        answers = generate_answers(
            model,
            tokenizer,
            list(chats),
            max_new_tokens=parameters.max_new_tokens,
            batch_size=parameters.batch_size,
            repetition_penalty=parameters.repetition_penalty,
            sampling=Sampling(parameters.temperature, parameters.top_p, self.seed),
            progress="Corrections",
        )
        return [Draft(answer.text, answer.complete) for answer in answers]


@dataclass(frozen=True)
class ChatWriter:
    """A model behind an OpenAI-compatible server of chat completions."""

    settings: ChatParameters
    parameters: CorrectionsParameters
    seed: int
    name: str = "chat"

    @property
    def model(self) -> str:
        """The model's name on the server."""
        return self.settings.model

    def __call__(self, chats: Sequence[Chat]) -> list[Draft]:
        """Sample an answer to every chat; a request that fails has an empty draft, which never passes."""
        from realignment.chat_client.chat import Request, complete_chats

        options = {
            "temperature": self.parameters.temperature,
            "top_p": self.parameters.top_p,
            "max_tokens": self.parameters.max_new_tokens,
        }
        # Every request has its own seed, so that a chat that repeats gets different answers.
        requests = [
            Request(chat, options | {"seed": self.seed + number}) for number, chat in enumerate(chats)
        ]
        replies = complete_chats(self.settings, requests, section="corrections.chat")
        faults = [reply.fault for reply in replies if reply.fault]
        if faults:
            logger.warning("%d of %d corrections were not written: %s", len(faults), len(chats), faults[0])
        return [Draft(reply.text, reply.complete) for reply in replies]


def supports_system_turn(tokenizer: Any) -> bool:
    """Return whether the tokenizer's chat template renders a system turn: some raise, some leave it out."""
    from jinja2 import TemplateError

    marker = "4f1c-marker"
    chat = [{"role": "system", "content": marker}, {"role": "user", "content": "?"}]
    try:
        return marker in str(tokenizer.apply_chat_template(chat, tokenize=False))
    except TemplateError:
        return False


def fold_system_turn(chat: Chat) -> Chat:
    """Return the chat with its system turn moved to the head of the first user turn."""
    system, user, *rest = chat
    return [{**user, "content": f"{system['content']}\n\n{user['content']}"}, *rest]


def build_writer(
    parameters: CorrectionsParameters,
    model_parameters: ModelParameters,
    verifier: OracleParameters,
    *,
    seed: int,
) -> Writer | None:
    """Build the writer that the parameters name.

    Args:
        parameters: The parameters of the stage.
        model_parameters: The reference model; it is fetched only where it is the writer.
        verifier: The oracle that will verify what is written.
        seed: Seeds the samples.

    Returns:
        A writer, or None where only people write.

    Raises:
        WriterError: The verifier is the writer itself, or only looks up verdicts, which no new text has.
    """
    if parameters.writer == "none":
        _check_can_verify_people(parameters.verifier)
        return None
    if parameters.writer == "chat":
        assert parameters.chat is not None  # checked with the parameters
        check_independent({parameters.chat.model}, verifier)
        return ChatWriter(parameters.chat, parameters, seed)
    check_independent({model_parameters.source}, verifier)
    reference = fetch_model(
        model_parameters.source,
        folder=Path(model_parameters.folder),
        sha256=model_parameters.sha256,
        revision=model_parameters.revision,
    )
    check_independent({reference.source, reference.sha256, reference.path}, verifier)
    version = f"{reference.source} sha256:{reference.sha256[:12]}"
    return ModelWriter(reference.path, version, model_parameters, parameters, seed)


def _check_can_verify_people(verifier: OracleParameters | None) -> None:
    if verifier is not None and {leaf.oracle for leaf in verifier.leaf_oracles()} == {"labels"}:
        raise WriterError(
            f"`corrections.verifier` is 'labels', which looks up {LOOKUP_ORACLES['labels']}: all that people "
            "wrote would be dropped. Leave it out, and where `judging` looks verdicts up their authors "
            "vouch for them; or name an oracle that reads texts, such as `{oracle: rules}`."
        )


def check_independent(writer: set[str], verifier: OracleParameters) -> None:
    """Make sure that no model verifies what it wrote: it would approve its own errors.

    Args:
        writer: Every name of the writing model: source, digest, path, name on a server.
        verifier: The oracle, with all members of a vote or a cascade.

    Raises:
        WriterError: The verifier is, or has as a member, the writer or an oracle that reads no texts.
    """
    for member in verifier.member_oracles():
        check_independent(writer, member)
    if verifier.oracle in LOOKUP_ORACLES:
        raise WriterError(
            f"Corrections are new texts, and their verifier is or asks {verifier.oracle!r}, which looks up "
            f"{LOOKUP_ORACLES[verifier.oracle]}: it can verify none of what a machine writes now. Set "
            "`corrections.verifier` to an oracle that reads texts, such as `{oracle: rules}`."
        )
    shared_names = writer & _list_names(verifier)
    if shared_names:
        raise WriterError(
            "The writer of corrections and their verifier are the same model "
            f"({sorted(shared_names)[0]}): it would approve its own errors. Set `corrections.verifier` to "
            "another oracle, or take another writer."
        )


def _list_names(oracle: OracleParameters) -> set[str]:
    """Return every name that the oracle's own model goes by; empty for an oracle without a model."""
    names: set[str | None] = set()
    if oracle.oracle == "local_lm" and oracle.local_lm is not None:
        names |= {oracle.local_lm.source, oracle.local_lm.sha256}
    if oracle.oracle == "chat" and oracle.chat is not None:
        names.add(oracle.chat.model)
    return {name for name in names if name is not None}
