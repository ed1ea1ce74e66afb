"""A server that answers every chat request in 50 ms, and a client that only sends requests."""

import asyncio
import json
import time
from typing import Any

ANSWER_S = 0.05
_REPLY = json.dumps({"reason": "It is general.", "rules_broken": [], "verdict": "COMPLIES"})
_BODY = json.dumps(
    {"choices": [{"message": {"content": _REPLY}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 700}}
).encode()
_HEAD = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(_BODY)}\r\n\r\n".encode()
ANSWER = _HEAD + _BODY


_REQUEST_HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3500\r\n\r\n"
REQUEST = _REQUEST_HEAD + b" " * 3500
"""A request as long as those of the chat oracle under the policy of the sample."""


class DelayedAnswer(asyncio.Protocol):
    """Answers a request 50 ms after its last byte, with little processor time: the client needs it too."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start with an empty buffer."""
        self._transport = transport
        self._buffer = b""

    def data_received(self, data: bytes) -> None:
        """Schedule the answer once the whole request has arrived."""
        self._buffer += data
        head, separator, body = self._buffer.partition(b"\r\n\r\n")
        if not separator:
            return
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        if len(body) >= length:
            self._buffer = body[length:]
            asyncio.get_running_loop().call_later(ANSWER_S, self._transport.write, ANSWER)


def serve(connection: Any) -> None:
    """Serve until the process is terminated, after sending the port through the connection."""

    async def run() -> None:
        server = await asyncio.get_running_loop().create_server(DelayedAnswer, "127.0.0.1", 0, backlog=512)
        connection.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(run())


def time_bare_client(port: int, requests: int, concurrency: int) -> float:
    """Measure the wall-clock seconds of a client that only sends requests and counts bytes.

    No client can be faster: this is the limit that server and machine set at this moment.
    """

    async def work(pending: list[None]) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while pending:
            pending.pop()
            writer.write(REQUEST)
            await reader.readexactly(len(ANSWER))
        writer.close()

    async def run() -> None:
        pending = [None] * requests
        await asyncio.gather(*(work(pending) for _ in range(concurrency)))

    start = time.perf_counter()
    asyncio.run(run())
    return time.perf_counter() - start
