"""Machines that write corrections: the reference model in process, or any model behind a chat server."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from realignment.model.fetching import fetch
from realignment.parameters import ChatParameters, CorrectionsParameters, OracleParameters
from realignment.parameters.base import ModelParameters
from realignment.records import RealignmentError

logger = logging.getLogger(__name__)

Chat = list[dict[str, str]]

LOOKED_UP = {
    "labels": "labels that come with the data",
    "human": "what people said of texts that they were shown",
}
"""Oracles that do not read a text, and what they look up instead."""


class WriterError(RealignmentError):
    """This writer cannot be used with this verifier."""


@dataclass(frozen=True, slots=True)
class Draft:
    """One answer of a writer; `complete`: it ended by itself and was not cut at a limit."""

    text: str
    complete: bool


class Writer(Protocol):
    """Anything that answers chats."""

    @property
    def name(self) -> str:
        """What reports call it."""
        ...

    @property
    def model(self) -> str:
        """Which model it is, and in which version."""
        ...

    def __call__(self, chats: Sequence[Chat]) -> list[Draft]:
        """One draft per chat, in order; a chat that repeats gets another draft each time."""
        ...


@dataclass(frozen=True)
class ModelWriter:
    """A causal language model in this process; it is loaded when it is asked."""

    path: str
    model: str
    model_parameters: ModelParameters
    parameters: CorrectionsParameters
    seed: int
    name: str = "model"

    def __call__(self, chats: Sequence[Chat]) -> list[Draft]:
        """Sampled answers, in batches."""
        from realignment.model.generation import Sampling, answer
        from realignment.model.loading import load_configured

        model, tokenizer = load_configured(self.path, self.model_parameters)
        known = knows_system_turn(tokenizer)
        wanted = self.parameters
        answers = answer(
            model,
            tokenizer,
            [chat if known else fold_system_turn(chat) for chat in chats],
            max_new_tokens=wanted.max_new_tokens,
            batch_size=wanted.batch_size,
            repetition_penalty=wanted.repetition_penalty,
            sampling=Sampling(wanted.temperature, wanted.top_p, self.seed),
            progress="Corrections",
        )
        return [Draft(one.text, one.complete) for one in answers]


@dataclass(frozen=True)
class ChatWriter:
    """A model behind a server that speaks OpenAI's chat completions."""

    settings: ChatParameters
    parameters: CorrectionsParameters
    seed: int
    name: str = "chat"

    @property
    def model(self) -> str:
        """Its name on the server."""
        return self.settings.model

    def __call__(self, chats: Sequence[Chat]) -> list[Draft]:
        """Sampled answers; a request that fails has an empty draft, which no gate lets pass."""
        from realignment.chat_client.chat import Request, converse

        wanted = self.parameters
        common = {
            "temperature": wanted.temperature,
            "top_p": wanted.top_p,
            "max_tokens": wanted.max_new_tokens,
        }
        requests = [Request(chat, common | {"seed": self.seed + number}) for number, chat in enumerate(chats)]
        replies = converse(self.settings, requests)
        if failed := [reply.fault for reply in replies if reply.fault]:
            logger.warning("%d of %d corrections were not written: %s", len(failed), len(chats), failed[0])
        return [Draft(reply.text, reply.complete) for reply in replies]


def knows_system_turn(tokenizer: Any) -> bool:
    """Whether the chat template shows a system turn to the model: some raise, some leave it out."""
    from jinja2 import TemplateError

    chat = [{"role": "system", "content": "4f1c-marker"}, {"role": "user", "content": "?"}]
    try:
        return "4f1c-marker" in str(tokenizer.apply_chat_template(chat, tokenize=False))
    except TemplateError:
        return False


def fold_system_turn(chat: Chat) -> Chat:
    """The chat with its system turn at the head of the first user turn."""
    system, first, *rest = chat
    return [{**first, "content": f"{system['content']}\n\n{first['content']}"}, *rest]


def appoint_writer(
    parameters: CorrectionsParameters,
    model_parameters: ModelParameters,
    verifier: OracleParameters,
    *,
    seed: int,
) -> Writer | None:
    """The writer that the parameters ask for; None for nobody.

    Args:
        parameters: Of the stage.
        model_parameters: M_ref; it is fetched only where it is the writer.
        verifier: Who will verify.
        seed: Of the samples.

    Raises:
        WriterError: The verifier is the writer itself, or only looks verdicts up, which no new text has.
    """
    if parameters.writer == "none":
        _check_can_verify_people(parameters.verifier)
        return None
    if parameters.writer == "chat":
        assert parameters.chat is not None  # checked with the parameters
        check_independent({parameters.chat.model}, verifier)
        return ChatWriter(parameters.chat, parameters, seed)
    check_independent({model_parameters.source}, verifier)
    reference = fetch(
        model_parameters.source,
        folder=Path(model_parameters.folder),
        sha256=model_parameters.sha256,
        revision=model_parameters.revision,
    )
    check_independent({reference.source, reference.sha256, reference.path}, verifier)
    version = f"{reference.source} sha256:{reference.sha256[:12]}"
    return ModelWriter(reference.path, version, model_parameters, parameters, seed)


def _check_can_verify_people(named: OracleParameters | None) -> None:
    if named is not None and {one.oracle for one in named.singles()} == {"labels"}:
        raise WriterError(
            f"`corrections.verifier` is 'labels', which looks up {LOOKED_UP['labels']}: all that people "
            "wrote would be dropped. Leave it out, and where `judging` looks verdicts up their authors "
            "vouch for them; or name an oracle that reads texts, such as `{oracle: rules}`."
        )


def check_independent(writer: set[str], verifier: OracleParameters) -> None:
    """Make sure that nobody verifies what it wrote: a model likes its own errors.

    Args:
        writer: Every name of the writing model: source, digest, path, name on a server.
        verifier: The oracle, with all that a vote or a cascade asks.
    """
    for member in verifier.members():
        check_independent(writer, member)
    if verifier.oracle in LOOKED_UP:
        raise WriterError(
            f"Corrections are new texts, and their verifier is or asks {verifier.oracle!r}, which looks up "
            f"{LOOKED_UP[verifier.oracle]}: it can verify none of what a machine writes now. Set "
            "`corrections.verifier` to an oracle that reads texts, such as `{oracle: rules}`."
        )
    if same := writer & _names(verifier):
        raise WriterError(
            f"The writer of corrections and their verifier are the same model ({sorted(same)[0]}): it would "
            "approve its own errors. Set `corrections.verifier` to another oracle, or take another writer."
        )


def _names(oracle: OracleParameters) -> set[str]:
    names: set[str | None] = set()
    if oracle.oracle == "local_lm" and oracle.local_lm is not None:
        names |= {oracle.local_lm.source, oracle.local_lm.sha256}
    if oracle.oracle == "chat" and oracle.chat is not None:
        names.add(oracle.chat.model)
    return {name for name in names if name is not None}
