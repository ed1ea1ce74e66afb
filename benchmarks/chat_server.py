"""A server that answers every chat request in 50 ms, and a client that does nothing but ask it."""

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


_ASKED = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3500\r\n\r\n"
REQUEST = _ASKED + b" " * 3500
"""As long as a request of the chat oracle under the policy of the sample."""


class Answering(asyncio.Protocol):
    """Answers a request 50 ms after its last byte, with little work of its own: the client runs beside it."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Nothing is read yet."""
        self._transport, self._read = transport, b""

    def data_received(self, data: bytes) -> None:
        """Answer once the whole request is there."""
        self._read += data
        head, ended, body = self._read.partition(b"\r\n\r\n")
        if not ended:
            return
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        if len(body) >= length:
            self._read = body[length:]
            asyncio.get_running_loop().call_later(ANSWER_S, self._transport.write, ANSWER)


def serve(connection: Any) -> None:
    """Serves until it is terminated; says its port first."""

    async def run() -> None:
        server = await asyncio.get_running_loop().create_server(Answering, "127.0.0.1", 0, backlog=512)
        connection.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(run())


def time_bare_client(port: int, requests: int, concurrency: int) -> float:
    """Wall-clock seconds of the fastest client there can be: sockets that send and count bytes.

    What server and machine leave possible at this moment.
    """

    async def work(rest: list[None]) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while rest:
            rest.pop()
            writer.write(REQUEST)
            await reader.readexactly(len(ANSWER))
        writer.close()

    async def run() -> None:
        rest = [None] * requests
        await asyncio.gather(*(work(rest) for _ in range(concurrency)))

    begun = time.perf_counter()
    asyncio.run(run())
    return time.perf_counter() - begun
