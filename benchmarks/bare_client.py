"""The fastest client there can be: sockets that send the same bytes and count those of the answers."""

import asyncio
import time

HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3500\r\n\r\n"
REQUEST = HEAD + b" " * 3500
"""As long as one of the chat oracle under the policy of the sample."""


def time_bare_client(port: int, *, requests: int, concurrency: int, answer_bytes: int) -> float:
    """Wall-clock seconds of so many requests: what server and machine leave possible at this moment."""

    async def work(rest: list[None]) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while rest:
            rest.pop()
            writer.write(REQUEST)
            await reader.readexactly(answer_bytes)
        writer.close()

    async def run() -> None:
        rest = [None] * requests
        await asyncio.gather(*(work(rest) for _ in range(concurrency)))

    begun = time.perf_counter()
    asyncio.run(run())
    return time.perf_counter() - begun
