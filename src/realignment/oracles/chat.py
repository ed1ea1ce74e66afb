"""A language model behind a server as judge: any server that speaks OpenAI's chat completions."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from realignment.chat_client.client import Answer, ChatServer, Failure, build_request_body
from realignment.chat_client.usage import Usage
from realignment.oracles.prompts import AS_JSON, build_system_message, build_user_message, list_probes
from realignment.oracles.protocol import Judgments, judge_in_order
from realignment.oracles.replies import read_reply, reply_schema, verdict_confidence
from realignment.parameters import ChatParameters
from realignment.policy import Policy
from realignment.records import Exchange, Judgment

_TOP_LOGPROBS = 5
"""Alternatives per token, which the confidence is computed from."""
_VERDICT_SETTINGS = {"base_url", "model", "temperature", "max_tokens", "json_schema", "logprobs", "extra"}
"""Settings that a verdict depends on, for the identity."""


@dataclass(frozen=True)
class ChatOracle:
    """Sends one request per exchange to the server, many at a time, and reads the verdict from a JSON reply.

    A reply that is cut, unreadable or contradictory is unscored with its reason; so is a request that fails
    `max_attempts` times, as a fault, which the next run retries.

    Attributes:
        settings: Server, model and limits.
        sample: Which of several samples at a temperature above 0 this one is; the seed of its requests.
        usage: Requests, tokens and cost so far.
    """

    settings: ChatParameters
    sample: int = 0
    usage: Usage = field(default_factory=Usage, compare=False)

    @property
    def name(self) -> str:
        """Kind and model of the oracle, for reports."""
        return f"chat {self.settings.model}"

    @property
    def identity(self) -> str:
        """Digest of server, sample and whole requests to it; the rate limit and the like play no part."""
        parts = self.settings.model_dump(include=_VERDICT_SETTINGS) | {"sample": self.sample}
        requests = []
        for policy, exchange in list_probes():
            for body in self.build_bodies([exchange], policy):
                requests.append(build_request_body(body, self.settings))
        parts["requests"] = requests
        return f"chat {hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()}"

    def __call__(self, exchanges: Sequence[Exchange], policy: Policy) -> list[Judgment]:
        """Return one judgment per exchange; confidence is the verdict's probability, 1 without logprobs."""
        return judge_in_order(self, exchanges, policy)

    def stream(self, exchanges: Sequence[Exchange], policy: Policy) -> Judgments:
        """Yield judgments as the replies come in.

        Raises:
            OracleError: The server is not there, refuses the key or the model, or answers nothing at all.
        """
        bodies = self.build_bodies(exchanges, policy)
        with closing(ChatServer(self.settings, self.usage).complete(bodies)) as answers:
            for position, answer in answers:
                self.usage.asked += 1
                yield position, self.read(answer, policy)

    def build_bodies(self, exchanges: Iterable[Exchange], policy: Policy) -> Iterator[dict[str, Any]]:
        """Yield the body of each request, without what `chat_client.client.build_request_body` adds."""
        shared = self._build_shared_fields(policy)
        system = {"role": "system", "content": build_system_message(policy)}
        for exchange in exchanges:
            yield shared | {
                "messages": [system, {"role": "user", "content": build_user_message(exchange, AS_JSON)}]
            }

    def _build_shared_fields(self, policy: Policy) -> dict[str, Any]:
        """Return the fields that all requests share, besides those of the server's settings."""
        request: dict[str, Any] = {"seed": self.sample}
        if self.settings.json_schema:
            schema = reply_schema([rule.id for rule in policy.rules])
            json_schema = {"name": "judgment", "strict": True, "schema": schema}
            request["response_format"] = {"type": "json_schema", "json_schema": json_schema}
        if self.settings.logprobs:
            request |= {"logprobs": True, "top_logprobs": _TOP_LOGPROBS}
        return request

    def read(self, answer: Answer, policy: Policy) -> Judgment:
        """Return the verdict of an answer; unscored, with the reason, where it gives none."""
        if isinstance(answer, Failure):
            return Judgment(None, 0.0, reason=f"no reply: {answer.reason}", oracle=self.name, fault=True)
        choice = answer.choices[0]
        if choice.finish_reason == "length":
            reason = f"the reply was cut at {self.settings.max_tokens} tokens (`judging.chat.max_tokens`)"
            return Judgment(None, 0.0, reason=reason, oracle=self.name)
        confidence = verdict_confidence(choice.tokens())
        return read_reply(
            choice.message.content or "",
            [rule.id for rule in policy.rules],
            oracle=self.name,
            confidence=1.0 if confidence is None else confidence,
        )
