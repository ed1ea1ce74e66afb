"""A language model behind a server as judge: any server that speaks OpenAI's chat completions."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from realignment.chat_client.client import Answer, ChatServer, Failure, fill_in
from realignment.chat_client.usage import Usage
from realignment.oracles.prompts import AS_JSON, ask, instruct, probes
from realignment.oracles.protocol import Judgments, in_order
from realignment.oracles.replies import read_reply, reply_schema, verdict_confidence
from realignment.parameters import ChatParameters
from realignment.policy import Policy
from realignment.records import Exchange, Judgment

_TOP_LOGPROBS = 5
_SHAPING = {"base_url", "model", "temperature", "max_tokens", "json_schema", "logprobs", "extra"}


@dataclass(frozen=True)
class ChatOracle:
    """Asks the server for each exchange, many at a time, and reads the verdict from a JSON reply.

    A reply that is cut, unreadable or contradictory is unscored with its reason; so is a request that fails
    `max_attempts` times, as a fault, which is asked again in the next run.

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
        """Kind and model."""
        return f"chat {self.settings.model}"

    @property
    def identity(self) -> str:
        """Digest of server, sample and whole requests to it; not of how fast it is asked."""
        parts = self.settings.model_dump(include=_SHAPING) | {"sample": self.sample}
        bodies = (body for policy, exchange in probes() for body in self.bodies([exchange], policy))
        parts["requests"] = [fill_in(body, self.settings) for body in bodies]
        return f"chat {hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()}"

    def __call__(self, exchanges: Sequence[Exchange], policy: Policy) -> list[Judgment]:
        """One judgment per exchange; confidence is the verdict's probability, or 1 without logprobs."""
        return in_order(self, exchanges, policy)

    def stream(self, exchanges: Sequence[Exchange], policy: Policy) -> Judgments:
        """Judgments as the replies come in.

        Raises:
            OracleError: The server is not there, refuses the key or the model, or answers nothing at all.
        """
        bodies = self.bodies(exchanges, policy)
        with closing(ChatServer(self.settings, self.usage).complete(bodies)) as answers:
            for position, answer in answers:
                self.usage.asked += 1
                yield position, self.read(answer, policy)

    def bodies(self, exchanges: Iterable[Exchange], policy: Policy) -> Iterator[dict[str, Any]]:
        """What is asked about each exchange, without what `chat_client.client.fill_in` adds."""
        shared, system = self._request(policy), {"role": "system", "content": instruct(policy)}
        for exchange in exchanges:
            yield shared | {"messages": [system, {"role": "user", "content": ask(exchange, AS_JSON)}]}

    def _request(self, policy: Policy) -> dict[str, Any]:
        """What all requests have in common, besides what the server's settings give."""
        request: dict[str, Any] = {"seed": self.sample}
        if self.settings.json_schema:
            schema = reply_schema([rule.id for rule in policy.rules])
            json_schema = {"name": "judgment", "strict": True, "schema": schema}
            request["response_format"] = {"type": "json_schema", "json_schema": json_schema}
        if self.settings.logprobs:
            request |= {"logprobs": True, "top_logprobs": _TOP_LOGPROBS}
        return request

    def read(self, answer: Answer, policy: Policy) -> Judgment:
        """The verdict of an answer; unscored, with the reason, where it gives none."""
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
