"""Real servers on this machine: one that follows a script, with every fault that a server can have."""

import json
import socket
import threading
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from realignment.parameters import ChatParameters

COMPLIES = {"reason": "It is careful.", "rules_broken": [], "verdict": "COMPLIES"}
VIOLATES = {"reason": "It says sell.", "rules_broken": [], "verdict": "VIOLATES"}


def completion(text, *, finish="stop", logprobs=None, usage=(100, 20)):
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
    choice |= {"logprobs": {"content": logprobs}} if logprobs else {}
    counts = {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)}
    return {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice],
            "usage": counts}  # fmt: skip


@dataclass
class Script:
    """What the server answers, and what it was asked.

    `answer(body, attempt)` gives a dict (a completion), a status, (status, headers[, body]), or bytes (a raw
    body); `attempt` counts the requests for one exchange from 1. Or it may sleep, or raise to break off.
    """

    answer: object = lambda body, attempt: completion(json.dumps(COMPLIES))
    key: str | None = None
    bodies: list = field(default_factory=list)
    times: list = field(default_factory=list)
    attempts: Counter = field(default_factory=Counter)
    under_way: int = 0
    most_under_way: int = 0
    lock: object = field(default_factory=threading.Lock)

    def asked(self):
        """The exchange of every request, in order."""
        return [exchange_of(body) for body in self.bodies]


def exchange_of(body):
    return json.loads(body["messages"][-1]["content"].splitlines()[1])


class BreakOff(Exception):
    """Half of the body is sent, then the connection ends."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self):
        script = self.server.script
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with script.lock:
            script.bodies.append(body)
            script.times.append(time.monotonic())
            script.under_way += 1
            script.most_under_way = max(script.most_under_way, script.under_way)
            key = body["messages"][-1]["content"]
            script.attempts[key] += 1
        try:
            self.respond(script, body, script.attempts[key])
        finally:
            with script.lock:
                script.under_way -= 1

    def respond(self, script, body, attempt):
        if script.key is not None and self.headers["Authorization"] != f"Bearer {script.key}":
            echo = {"error": {"message": f"Incorrect key {self.headers['Authorization']}"}}
            return self.send(401, json.dumps(echo).encode())
        try:
            answer = script.answer(body, attempt)
        except BreakOff:
            whole = json.dumps(completion(json.dumps(COMPLIES))).encode()
            self.send(200, whole[: len(whole) // 2], length=len(whole))
            self.close_connection = True
            return None
        match answer:
            case dict():
                return self.send(200, json.dumps(answer).encode())
            case bytes():
                return self.send(200, answer)
            case int():
                return self.send(answer, b'{"error": {"message": "scripted"}}')
            case (int() as status, dict() as headers, bytes() as said):
                return self.send(status, said, headers=headers)
            case (int() as status, dict() as headers):
                return self.send(status, b'{"error": {"message": "scripted"}}', headers=headers)

    def send(self, status, body, *, headers=None, length=None):
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(length or len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, request, client_address):
        pass  # a client that hangs up is part of the tests


@contextmanager
def scripted(script):
    """The address of a server that follows the script."""
    server = Server(("127.0.0.1", 0), Handler)
    server.script = script
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()


def unused_url():
    """Where nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}/v1"


def chat_settings(url, **changes):
    return ChatParameters(**({"base_url": url, "model": "m", "timeout_s": 20.0} | changes))
