"""Answers of models behind a server: many requests at a time, each answer kept as it comes."""

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from realignment.chat_client.client import ChatServer, Failure, build_request_body
from realignment.chat_client.completions import Completion
from realignment.chat_client.store import BatchWriter, SqliteStore
from realignment.chat_client.usage import Usage
from realignment.parameters import ChatParameters, EvaluationParameters
from realignment.records import RealignmentError

logger = logging.getLogger(__name__)

Chat = list[dict[str, str]]

_SECTION = "evaluation.chat"


class AnswerError(RealignmentError):
    """Some prompts have no answer; those that came are kept."""


@dataclass(frozen=True, slots=True)
class ServedAnswer:
    """An answer of a model behind a server.

    Attributes:
        text: Without surrounding white space.
        complete: Whether the model ended its turn itself; False: it was cut at the limit; None: the server
            does not say.
    """

    text: str
    complete: bool | None


@dataclass(frozen=True)
class AnswerStore(SqliteStore[ServedAnswer]):
    """A SQLite file of answers by all that an answer depends on (`ServedModel.answer_key`)."""

    value = "answer"
    setting = "evaluation.answer_store"
    table = "answers"
    columns = ("text TEXT NOT NULL", "complete INTEGER")

    def to_cells(self, value: ServedAnswer) -> tuple[Any, ...]:
        """Return the cells of an answer."""
        return value.text, value.complete

    def from_cells(self, cells: Sequence[Any]) -> ServedAnswer:
        """Return the answer of a row's cells."""
        text, complete = cells
        return ServedAnswer(str(text), None if complete is None else bool(complete))


@dataclass(frozen=True)
class ServedModel:
    """A model behind a server, and the store of its answers.

    Attributes:
        settings: Server, model, temperature, length limit, and limits of the requests.
        weights: What tells two models apart that are served under one name, such as the folder of a
            checkpoint: a model that was trained again is asked again.
        store: Keeps the answers; None: nothing is kept.
        refresh: Ask again for what the store has, and replace it.
        usage: Requests, tokens and cost so far.
    """

    settings: ChatParameters
    weights: str = ""
    store: AnswerStore | None = None
    refresh: bool = False
    usage: Usage = field(default_factory=Usage, compare=False)

    def answer(self, chats: Sequence[Chat], streams: Sequence[int], *, progress: str) -> list[ServedAnswer]:
        """Return the model's answer to every chat; only those that the store lacks are asked for.

        Args:
            chats: Messages before the answer.
            streams: Number of each chat's stream of random draws, the seed of its request; at temperature 0
                nothing is drawn, and equal chats are asked once.
            progress: Label of the progress bar.

        Returns:
            One answer per chat, in order.

        Raises:
            OracleError: The server is not there, refuses the key or the model, or answers nothing at all.
            AnswerError: Requests have failed after all retries. What came before is kept in either case.
        """
        keys: list[bytes] = []
        bodies: dict[bytes, dict[str, Any]] = {}
        for chat, stream in zip(chats, streams, strict=True):
            # The largest seed that every server takes is that of 31 bits.
            body = {"messages": chat} | ({"seed": stream % 2**31} if self.settings.temperature else {})
            keys.append(self.answer_key(body, stream))
            bodies[keys[-1]] = body
        answers = {} if self.store is None or self.refresh else self.store.look_up(list(bodies))
        self.usage.stored += len(answers)
        missing = {key: body for key, body in bodies.items() if key not in answers}
        answers |= self._request(missing, progress)
        logger.info("%s: %s from the store, %s from the server", progress, self.usage.stored, len(missing))
        return [answers[key] for key in keys]

    def answer_key(self, body: Mapping[str, Any], stream: int) -> bytes:
        """Return the sha256 of all that an answer depends on: weights, server, request, and the draw.

        Args:
            body: The request's own fields.
            stream: Number of the stream of random draws. It counts also where `extra` removes the seed, for
                two samples of a prompt are never the same answer.

        Returns:
            32 bytes.
        """
        draw = stream if self.settings.temperature else None
        request = build_request_body(body, self.settings)
        parts = json.dumps([self.settings.base_url, self.weights, draw, request], sort_keys=True)
        return hashlib.sha256(parts.encode()).digest()

    def _request(self, bodies: Mapping[bytes, Mapping[str, Any]], progress: str) -> dict[bytes, ServedAnswer]:
        """Ask for every body, and store each answer as it comes."""
        if not bodies:
            return {}
        keys = list(bodies)
        answers: dict[bytes, ServedAnswer] = {}
        reasons: list[str] = []
        replies = ChatServer(self.settings, self.usage, _SECTION).complete(bodies.values())
        bar = tqdm(total=len(keys), desc=progress, unit="answer", disable=None)
        # The writer also stores the rest where the server breaks off.
        with BatchWriter(self._write) as writer, closing(replies), bar:
            for position, reply in replies:
                if isinstance(reply, Failure):
                    reasons.append(reply.reason)
                    continue
                answers[keys[position]] = _read(reply)
                writer.add(keys[position], answers[keys[position]])
                bar.update()
        if reasons:
            raise AnswerError(self._describe_failures(reasons, len(bodies)))
        return answers

    def _write(self, answers: Mapping[bytes, ServedAnswer]) -> None:
        if self.store is not None:
            self.store.write(answers)

    def _describe_failures(self, reasons: Sequence[str], n: int) -> str:
        kept = (
            f"Set `{AnswerStore.setting}` to keep what comes; now all are asked for again."
            if self.store is None
            else f"The answers that came are kept in {self.store.path}: only what is missing is asked for."
        )
        return (
            f"{len(reasons)} of {n} requests to {self.settings.model} at {self.settings.base_url} have no "
            f"answer after all attempts (`{_SECTION}.max_attempts`); the first: {reasons[0]}. See to the "
            f"server, or to `{_SECTION}` (timeout_s, concurrency, extra), and run again. {kept}"
        )


def _read(completion: Completion) -> ServedAnswer:
    choice = completion.choices[0]
    text = (choice.message.content or "").strip()
    return ServedAnswer(text, None if choice.finish_reason is None else choice.finish_reason != "length")


def find_served_model(parameters: EvaluationParameters, side: str, weights: str) -> ServedModel:
    """Return the model that answers for one side.

    Args:
        parameters: Of `engine: chat`, with its section.
        side: "before" or "after".
        weights: See `ServedModel`.
    """
    assert parameters.server is not None  # the caller has checked it
    settings = parameters.server.of_side(
        side, temperature=parameters.temperature, max_tokens=parameters.max_new_tokens
    )
    path = parameters.answer_store
    store = None if path is None else AnswerStore(Path(path))
    return ServedModel(settings, weights, store, parameters.refresh)
