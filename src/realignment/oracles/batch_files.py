"""Files of requests and of replies in OpenAI's batch format, which `vllm run-batch` reads and writes too.

A request is one line ``{custom_id, method, url, body}``. Its reply is one line ``{custom_id, response,
error}``, in any order: ``response.body`` is a chat completion where ``response.status_code`` is 200; else
`error` says what is wrong (vLLM) or ``response.body`` does (OpenAI), and `response` may be null.
"""

import hashlib
import json
import os
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ValidationError

from realignment.chat_client.client import Answer, Failure
from realignment.chat_client.completions import Completion, MalformedReplyError, parse_completion
from realignment.chat_client.retry import describe, message_of
from realignment.records import Exchange

_URL = "/v1/chat/completions"
_ID_LENGTH = 32


@dataclass(frozen=True, slots=True)
class Request:
    """One line of a file of requests.

    Attributes:
        exchange: That it asks about.
        custom_id: Digest of the body: a reply is never taken for that of another question.
        line: With its line break.
    """

    exchange: Exchange
    custom_id: str
    line: bytes


def write_request(exchange: Exchange, body: Mapping[str, Any]) -> Request:
    """The line that asks `body` of a chat completion."""
    custom_id = hashlib.sha256(json.dumps(body).encode()).hexdigest()[:_ID_LENGTH]
    line = {"custom_id": custom_id, "method": "POST", "url": _URL, "body": body}
    return Request(exchange, custom_id, json.dumps(line).encode() + b"\n")


@dataclass(frozen=True)
class Partition:
    """A folder with a file of requests, and what has been answered of it; its name is a digest of them.

    Attributes:
        folder: It also holds what the command printed.
        requests: By custom_id.
    """

    folder: Path
    requests: dict[str, Exchange]

    @property
    def input(self) -> Path:
        """The requests."""
        return self.folder / "requests.jsonl"

    @property
    def output(self) -> Path:
        """The replies of a command that has ended well."""
        return self.folder / "replies.jsonl"

    @property
    def unfinished(self) -> Path:
        """What this process has its command write; it becomes `output` when the command has ended well."""
        return self.folder / f"replies-{os.getpid()}.partial"

    @property
    def log(self) -> Path:
        """What the command printed."""
        return self.folder / "command.log"

    def broken_off(self) -> list[Path]:
        """What commands wrote that were killed with the run that started them."""
        return sorted(self.folder.glob("replies-*.partial"))

    def is_judged(self) -> bool:
        """Whether a run has had all the verdicts of these replies: they are not used again."""
        return self._judged.exists()

    def set_judged(self) -> None:
        """The verdicts have been handed over."""
        self._judged.touch()

    def forget_replies(self) -> None:
        """Make room for new ones."""
        for file in (self.output, *self.broken_off(), self._judged):
            file.unlink(missing_ok=True)

    @property
    def _judged(self) -> Path:
        return self.folder / "judged"


@dataclass
class _Draft:
    """A file of requests that is being written."""

    path: Path
    size: int = 0
    requests: dict[str, Exchange] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._file, self._digest = self.path.open("wb"), hashlib.sha256()

    def add(self, request: Request) -> None:
        self._file.write(request.line)
        self._digest.update(request.line)
        self.size += len(request.line)
        self.requests[request.custom_id] = request.exchange

    def finish(self) -> Partition:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        partition = Partition(self.path.parent / self._digest.hexdigest()[:_ID_LENGTH], self.requests)
        partition.folder.mkdir(exist_ok=True)
        self.path.replace(partition.input)
        return partition

    def discard(self) -> None:
        self._file.close()
        self.path.unlink(missing_ok=True)


def write_partitions(
    requests: Iterable[Request], folder: Path, max_requests: int, max_bytes: float
) -> Generator[Partition, None, None]:
    """Files of requests, each written only when the one before has been dealt with.

    Args:
        requests: In order; no two with the same custom_id.
        folder: Of the partitions' folders; made if it is missing.
        max_requests: Of a file.
        max_bytes: Of a file; a single request may be longer.
    """
    folder.mkdir(parents=True, exist_ok=True)
    draft: _Draft | None = None
    try:
        for request in requests:
            if draft is not None and (
                len(draft.requests) >= max_requests or draft.size + len(request.line) > max_bytes
            ):
                finished, draft = draft.finish(), None
                yield finished
            draft = draft or _Draft(folder / f".requests-{os.getpid()}")
            draft.add(request)
        if draft is not None:
            finished, draft = draft.finish(), None
            yield finished
    finally:
        if draft is not None:
            draft.discard()


class _Answered(BaseModel):
    status_code: Literal[200]
    body: Completion


class _Line(BaseModel):
    custom_id: str
    response: _Answered
    error: None = None


def read_replies(file: Path) -> Iterator[tuple[str, Answer] | None]:
    """Of each line the custom_id and the answer, in the order of the file; None where it has no custom_id.

    The last line may be half: the command was killed, or still writes.
    """
    with file.open("rb") as lines:
        for line in lines:
            if line.strip():
                yield _read(line)


def _read(line: bytes) -> tuple[str, Answer] | None:
    with suppress(ValidationError):  # nearly all; the rest is looked at closely
        found = _Line.model_validate_json(line)
        return found.custom_id, found.response.body
    try:
        reply = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(reply, dict) or not isinstance(reply.get("custom_id"), str):
        return None
    return reply["custom_id"], _read_closely(reply)


def _read_closely(reply: dict[str, Any]) -> Answer:
    response = reply.get("response")
    response = response if isinstance(response, dict) else {}
    status, body = response.get("status_code", 200 if response else None), response.get("body")
    if (error := reply.get("error")) or status != 200:
        message = message_of(json.dumps(error or body).encode())
        return Failure(f"no response: {message}" if status is None else f"status {status}: {message}")
    try:
        return parse_completion(json.dumps(body).encode())
    except MalformedReplyError as problem:
        return Failure(describe(problem))
