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
from realignment.chat_client.retry import describe_error, error_message
from realignment.records import Exchange

_URL = "/v1/chat/completions"
_ID_LENGTH = 32
"""Hexadecimal digits of a digest that names a request or a partition."""


@dataclass(frozen=True, slots=True)
class Request:
    """One line of a file of requests.

    Attributes:
        exchange: The exchange that it asks about.
        custom_id: Digest of the body: a reply is never taken for that of another question.
        line: JSON, with its line break.
    """

    exchange: Exchange
    custom_id: str
    line: bytes


def write_request(exchange: Exchange, body: Mapping[str, Any]) -> Request:
    """Return the line that requests a chat completion with this body."""
    custom_id = hashlib.sha256(json.dumps(body).encode()).hexdigest()[:_ID_LENGTH]
    line = {"custom_id": custom_id, "method": "POST", "url": _URL, "body": body}
    return Request(exchange, custom_id, json.dumps(line).encode() + b"\n")


@dataclass(frozen=True)
class Partition:
    """A folder with a file of requests and their replies; its name is a digest of the requests.

    Attributes:
        folder: The folder; it also holds what the command printed.
        requests: Exchanges by custom_id.
    """

    folder: Path
    requests: dict[str, Exchange]

    @property
    def input(self) -> Path:
        """File of the requests."""
        return self.folder / "requests.jsonl"

    @property
    def output(self) -> Path:
        """File of the replies of a command that has ended well."""
        return self.folder / "replies.jsonl"

    @property
    def partial_output(self) -> Path:
        """File that this process's command writes; it becomes `output` when the command has ended well."""
        return self.folder / f"replies-{os.getpid()}.partial"

    @property
    def log(self) -> Path:
        """File of what the command printed."""
        return self.folder / "command.log"

    def interrupted_outputs(self) -> list[Path]:
        """List the files of commands that were killed with the run that started them."""
        return sorted(self.folder.glob("replies-*.partial"))

    def is_judged(self) -> bool:
        """Return whether a run has used all these replies, so that they are not used again."""
        return self._judged.exists()

    def mark_judged(self) -> None:
        """Note that a run has used all these replies."""
        self._judged.touch()

    def delete_replies(self) -> None:
        """Delete all replies, so that the command answers anew."""
        for file in (self.output, *self.interrupted_outputs(), self._judged):
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
        self._file = self.path.open("wb")
        self._digest = hashlib.sha256()

    def add(self, request: Request) -> None:
        self._file.write(request.line)
        self._digest.update(request.line)
        self.size += len(request.line)
        self.requests[request.custom_id] = request.exchange

    def is_full(self, request: Request, *, max_requests: int, max_bytes: float) -> bool:
        """Return whether the file has no room for another request; an empty one always has."""
        if not self.requests:
            return False
        return len(self.requests) >= max_requests or self.size + len(request.line) > max_bytes

    def finish(self) -> Partition:
        """Close the file and move it to its partition, whose name is known only now."""
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
    requests: Iterable[Request], folder: Path, *, max_requests: int, max_bytes: float
) -> Generator[Partition, None, None]:
    """Write files of requests, each only when the one before has been dealt with.

    Args:
        requests: Requests in order; no two with the same custom_id.
        folder: Parent of the partitions' folders; made if it is missing.
        max_requests: Limit of a file.
        max_bytes: Limit of a file; a single request may be longer.

    Yields:
        The partitions, in the order of the requests.
    """
    folder.mkdir(parents=True, exist_ok=True)
    draft: _Draft | None = None
    try:
        for request in requests:
            if draft is not None and draft.is_full(request, max_requests=max_requests, max_bytes=max_bytes):
                partition = draft.finish()
                draft = None  # so that closing the generator at the yield does not discard it
                yield partition
            draft = draft or _Draft(folder / f".requests-{os.getpid()}")
            draft.add(request)
        if draft is not None:
            partition = draft.finish()
            draft = None
            yield partition
    finally:
        if draft is not None:
            draft.discard()


class _Response(BaseModel):
    status_code: Literal[200]
    body: Completion


class _Line(BaseModel):
    custom_id: str
    response: _Response
    error: None = None


def read_replies(file: Path) -> Iterator[tuple[str, Answer] | None]:
    """Yield custom_id and answer of each line, in the order of the file; None where it has no custom_id.

    The last line may be incomplete: the command was killed, or still writes.
    """
    with file.open("rb") as lines:
        for line in lines:
            if line.strip():
                yield _read(line)


def _read(line: bytes) -> tuple[str, Answer] | None:
    with suppress(ValidationError):  # the fast path, for nearly all lines; the rest is faults
        reply_line = _Line.model_validate_json(line)
        return reply_line.custom_id, reply_line.response.body
    try:
        reply = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(reply, dict) or not isinstance(reply.get("custom_id"), str):
        return None
    return reply["custom_id"], _read_answer(reply)


def _read_answer(reply: dict[str, Any]) -> Answer:
    """Return the completion, or the failure that vLLM reports in `error` and OpenAI in the response."""
    response = reply.get("response")
    response = response if isinstance(response, dict) else {}
    status = response.get("status_code", 200 if response else None)
    body = response.get("body")
    error = reply.get("error")
    if error or status != 200:
        message = error_message(json.dumps(error or body).encode())
        return Failure(f"no response: {message}" if status is None else f"status {status}: {message}")
    try:
        return parse_completion(json.dumps(body).encode())
    except MalformedReplyError as problem:
        return Failure(describe_error(problem))
