"""A language model behind a server as judge: any server that speaks OpenAI's chat completions."""

import asyncio
import hashlib
import json
import queue
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from realignment.oracles import Judgments, Usage, in_order
from realignment.oracles.asking import (
    Asking,
    Faults,
    MalformedReplyError,
    Pace,
    cannot_go_on,
    connect,
    describe,
    persist,
)
from realignment.oracles.completions import Completion, parse_completion
from realignment.oracles.prompts import AS_JSON, ask, instruct
from realignment.oracles.replies import read_reply, reply_schema, verdict_confidence
from realignment.parameters import ChatParameters
from realignment.policy import Policy
from realignment.records import Exchange, Judgment

if TYPE_CHECKING:
    from openai import AsyncOpenAI

_TOP_LOGPROBS = 5
_NO_POLICY = Policy(name="none", version="0", text="-")


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
        """Digest of server, model, wording and what shapes a reply; not of how fast it is asked."""
        shaping = {"base_url", "model", "temperature", "max_tokens", "json_schema", "logprobs", "extra"}
        parts = self.settings.model_dump(include=shaping)
        parts |= {"sample": self.sample, "wording": [instruct(_NO_POLICY), ask(Exchange("", ""), AS_JSON)]}
        return f"chat {hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()}"

    def __call__(self, exchanges: Sequence[Exchange], policy: Policy) -> list[Judgment]:
        """One judgment per exchange; confidence is the verdict's probability, or 1 without logprobs."""
        return in_order(self, exchanges, policy)

    def stream(self, exchanges: Sequence[Exchange], policy: Policy) -> Judgments:
        """Judgments as the replies come in.

        Raises:
            OracleError: The server is not there, refuses the key or the model, or answers nothing at all.
        """
        replies: queue.SimpleQueue[tuple[int, Judgment] | None] = queue.SimpleQueue()
        asking = Asking(self._ask_all(exchanges, policy, replies), replies)
        asking.start()
        try:
            while (reply := replies.get()) is not None:
                self.usage.asked += 1
                yield reply
        finally:
            asking.stop()
        if asking.error is not None:
            raise asking.error

    async def _ask_all(
        self, exchanges: Sequence[Exchange], policy: Policy, replies: "queue.SimpleQueue[Any]"
    ) -> None:
        """A fixed number of workers share one list: so many requests are under way, and no task waits."""
        rest = iter(enumerate(exchanges))
        pace, faults = Pace(self.settings.requests_per_minute), Faults()
        async with connect(self.settings) as client:

            async def work() -> None:
                for position, exchange in rest:
                    judgment = await self._judge(client, exchange, policy, pace, faults)
                    replies.put((position, judgment))

            async with asyncio.TaskGroup() as group:
                for _ in range(min(self.settings.concurrency, len(exchanges))):
                    group.create_task(work())

    async def _judge(
        self, client: "AsyncOpenAI", exchange: Exchange, policy: Policy, pace: Pace, faults: Faults
    ) -> Judgment:
        from openai import OpenAIError

        request = self._request(exchange, policy)

        async def send() -> Completion:
            await pace.wait()
            self.usage.requests += 1
            raw = await client.chat.completions.with_raw_response.create(**request)
            return parse_completion(raw.content)

        try:
            completion = await persist(send, max_attempts=self.settings.max_attempts)
        except (OpenAIError, MalformedReplyError) as error:
            if problem := cannot_go_on(error, self.settings.base_url, self.settings.model):
                raise problem from error
            reason = f"no reply: {describe(error)}"
            faults.count(reason)
            return Judgment(None, 0.0, reason=reason, oracle=self.name, fault=True)
        faults.reset()
        return self._read(completion, policy)

    def _request(self, exchange: Exchange, policy: Policy) -> dict[str, Any]:
        settings = self.settings
        messages = [
            {"role": "system", "content": instruct(policy)},
            {"role": "user", "content": ask(exchange, AS_JSON)},
        ]
        body: dict[str, Any] = {
            "temperature": settings.temperature, "max_tokens": settings.max_tokens, "seed": self.sample
        }  # fmt: skip
        if settings.json_schema:
            schema = reply_schema([rule.id for rule in policy.rules])
            json_schema = {"name": "judgment", "strict": True, "schema": schema}
            body["response_format"] = {"type": "json_schema", "json_schema": json_schema}
        if settings.logprobs:
            body |= {"logprobs": True, "top_logprobs": _TOP_LOGPROBS}
        body = {name: value for name, value in (body | settings.extra).items() if value is not None}
        return {"model": settings.model, "messages": messages, "extra_body": body}

    def _read(self, completion: Completion, policy: Policy) -> Judgment:
        self._count(completion)
        choice = completion.choices[0]
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

    def _count(self, completion: Completion) -> None:
        if completion.usage is None:
            return
        read, written = completion.usage.prompt_tokens, completion.usage.completion_tokens
        self.usage.prompt_tokens += read
        self.usage.completion_tokens += written
        settings = self.settings
        self.usage.cost += (read * settings.prompt_price + written * settings.completion_price) / 1e6
