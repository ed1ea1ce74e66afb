"""A language model behind a server as judge: any server that speaks OpenAI's chat completions."""

import asyncio
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from realignment.oracles import Judgments, OracleError, Usage, in_order
from realignment.oracles.asking import (
    Asking,
    Faults,
    MalformedReplyError,
    Pace,
    StatusError,
    cannot_go_on,
    describe,
    persist,
    post,
    proxy_for,
)
from realignment.oracles.completions import Completion, parse_completion
from realignment.oracles.prompts import AS_JSON, ask, instruct
from realignment.oracles.replies import read_reply, reply_schema, verdict_confidence
from realignment.parameters import ChatParameters
from realignment.policy import Policy
from realignment.records import Exchange, Judgment

if TYPE_CHECKING:
    import aiohttp

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
        asking: Asking[tuple[int, Judgment]] = Asking(lambda give: self._ask_all(exchanges, policy, give))
        with asking:
            for reply in asking.results():
                self.usage.asked += 1
                yield reply

    async def _ask_all(
        self, exchanges: Sequence[Exchange], policy: Policy, give: Callable[[tuple[int, Judgment]], None]
    ) -> None:
        """A fixed number of workers share one list: so many requests are under way, and no task waits."""
        rest = iter(enumerate(exchanges))
        async with self._connect() as session:
            call = _Call(session, self._request(policy), Pace(self.settings.requests_per_minute), Faults())

            async def work() -> None:
                for position, exchange in rest:
                    give((position, await self._judge(call, exchange, policy)))

            async with asyncio.TaskGroup() as group:
                for _ in range(min(self.settings.concurrency, len(exchanges))):
                    group.create_task(work())

    def _connect(self) -> "aiohttp.ClientSession":
        import aiohttp

        settings = self.settings
        headers = {"Content-Type": "application/json"}
        if (variable := settings.api_key_variable) is not None:
            if not (key := os.environ.get(variable)):
                raise OracleError(
                    f"The environment variable {variable} holds no key for {settings.base_url}. Set it, or "
                    "`judging.chat.api_key_variable: null` for a server that wants none."
                )
            headers["Authorization"] = f"Bearer {key}"
        return aiohttp.ClientSession(
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=settings.timeout_s),
            connector=aiohttp.TCPConnector(limit=settings.concurrency),
            proxy=proxy_for(settings.base_url),
        )

    async def _judge(self, call: "_Call", exchange: Exchange, policy: Policy) -> Judgment:
        from aiohttp import ClientError

        settings = self.settings
        url = f"{settings.base_url.rstrip('/')}/chat/completions"
        user = {"role": "user", "content": ask(exchange, AS_JSON)}
        body = call.request | {"messages": [*call.request["messages"], user]}

        async def send() -> Completion:
            await call.pace.wait()
            self.usage.requests += 1
            return parse_completion(await post(call.session, url, body))

        try:
            completion = await persist(send, max_attempts=settings.max_attempts)
        except (StatusError, ClientError, TimeoutError, MalformedReplyError) as error:
            if problem := cannot_go_on(error, settings.base_url, settings.model):
                raise problem from error
            reason = f"no reply: {describe(error)}"
            call.faults.count(reason)
            return Judgment(None, 0.0, reason=reason, oracle=self.name, fault=True)
        call.faults.reset()
        return self._read(completion, policy)

    def _request(self, policy: Policy) -> dict[str, Any]:
        """What all requests of a call have in common."""
        settings = self.settings
        request: dict[str, Any] = {
            "model": settings.model,
            "messages": [{"role": "system", "content": instruct(policy)}],
            "temperature": settings.temperature,
            "max_tokens": settings.max_tokens,
            "seed": self.sample,
        }
        if settings.json_schema:
            schema = reply_schema([rule.id for rule in policy.rules])
            json_schema = {"name": "judgment", "strict": True, "schema": schema}
            request["response_format"] = {"type": "json_schema", "json_schema": json_schema}
        if settings.logprobs:
            request |= {"logprobs": True, "top_logprobs": _TOP_LOGPROBS}
        return {name: value for name, value in (request | settings.extra).items() if value is not None}

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


@dataclass(frozen=True)
class _Call:
    """What the requests of one call share."""

    session: "aiohttp.ClientSession"
    request: dict[str, Any]
    pace: Pace
    faults: Faults
