"""The chat oracle by files: write requests, run a command that answers them, and read its replies."""

import logging
import shutil
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from realignment.chat_client.client import Failure, build_request_body
from realignment.chat_client.usage import Usage, add_usage
from realignment.oracles.batch_files import Partition, Request, read_replies, write_partitions, write_request
from realignment.oracles.chat import ChatOracle
from realignment.oracles.commands import fill_placeholders, read_log_tail, require_command, run_command
from realignment.oracles.protocol import Judgments, judge_in_order
from realignment.parameters import BatchParameters
from realignment.policy import Policy
from realignment.records import Exchange, Judgment, OracleError

logger = logging.getLogger(__name__)

_MIN_REQUESTS_TO_FAIL = 50
"""With so many requests and not one answer, something is wrong with the command."""
_MISSING = "no reply: the command ended well, and wrote no line for this request"
_CONTRADICTION = "no reply: the command wrote two, with different verdicts"
_AGAIN = "Run again: only what is missing is requested."
ExchangeJudgments = Generator[tuple[Exchange, Judgment], None, None]


@dataclass(frozen=True)
class BatchOracle:
    """Sends the requests of `chat`, and reads replies as it does, by files in OpenAI's batch format.

    Requests about one prompt stand side by side, each with the policy first, so that a server with prefix
    caching reads each beginning once. What a killed run has left is used: replies that no run has judged
    yet, to files of requests that are equal to the last byte.

    Attributes:
        chat: Gives wording, settings and identity: in the verdict store, verdicts are its own.
        settings: The command, and where the files are kept.
        refresh: Use no replies that an earlier run has left.
    """

    chat: ChatOracle
    settings: BatchParameters
    refresh: bool = False

    @property
    def name(self) -> str:
        """Name of the oracle, in reports as that of `chat`."""
        return self.chat.name

    @property
    def identity(self) -> str:
        """Identity of `chat`: how its requests are sent changes no verdict."""
        return self.chat.identity

    @property
    def usage(self) -> Usage:
        """What `chat` has cost so far."""
        return self.chat.usage

    def __call__(self, exchanges: Sequence[Exchange], policy: Policy) -> list[Judgment]:
        """Return one judgment per exchange; equal exchanges share one request."""
        return judge_in_order(self, exchanges, policy)

    def stream(self, exchanges: Sequence[Exchange], policy: Policy) -> Judgments:
        """Yield judgments whenever a file of requests has been answered.

        Raises:
            OracleError: The command is not there, fails, or answers nothing; or the disk is full.
        """
        if not exchanges:
            return
        require_command(self.settings.command)
        positions: dict[Exchange, list[int]] = {}
        for position, exchange in enumerate(exchanges):
            positions.setdefault(exchange, []).append(position)
        try:
            with closing(self._judge(self._write_requests(positions, policy), policy)) as judgments:
                for exchange, judgment in judgments:
                    self.usage.asked += len(positions[exchange])
                    for position in positions[exchange]:
                        yield position, judgment
        except OSError as error:
            raise OracleError(
                f"The files in {self.settings.folder} (`judging.vllm_batch.folder`) cannot be written or "
                f"read, or the command cannot be started: {error}. {_AGAIN}"
            ) from error

    def _write_requests(self, exchanges: Iterable[Exchange], policy: Policy) -> Iterator[Request]:
        """Yield the requests about these exchanges, those about one prompt together, for prefix caching."""
        ordered = sorted(exchanges, key=lambda e: (e.domain or "", e.prompt, e.response))
        for exchange, body in zip(ordered, self.chat.build_bodies(ordered, policy), strict=True):
            yield write_request(exchange, build_request_body(body, self.chat.settings))

    def _judge(self, requests: Iterable[Request], policy: Policy) -> ExchangeJudgments:
        partitions = write_partitions(
            requests,
            Path(self.settings.folder),
            max_requests=self.settings.max_requests,
            max_bytes=self.settings.max_megabytes * 1e6,
        )
        with closing(partitions):
            for partition in partitions:
                yield from self._judge_partition(partition, policy)

    def _judge_partition(self, partition: Partition, policy: Policy) -> ExchangeJudgments:
        if self.refresh or partition.is_judged():
            partition.delete_replies()
        if partition.output.exists():
            logger.info("Replies that no run has judged yet are used: %s", partition.output)
        else:
            judgments = self._read_answered(partition, partition.interrupted_outputs(), policy)
            if judgments:
                logger.info("%d replies that a killed run has left are used", len(judgments))
                for custom_id, judgment in judgments.items():
                    yield partition.requests[custom_id], judgment
                # What that run has not answered becomes partitions of its own.
                rest = [e for custom_id, e in partition.requests.items() if custom_id not in judgments]
                yield from self._judge(self._write_requests(rest, policy), policy)
                return self._remove(partition)
            yield from self._run_command(partition, policy)
        judgments = self._read(partition, [partition.output], policy)
        missing = Judgment(None, 0.0, reason=_MISSING, oracle=self.name, fault=True)
        if len(partition.requests) >= _MIN_REQUESTS_TO_FAIL and all(j.fault for j in judgments.values()):
            partition.mark_judged()
            first = next(iter(judgments.values()), missing)
            raise OracleError(
                f"The batch command has answered none of the {len(partition.requests)} requests in "
                f"{partition.input}: {first.reason}. See to it ({partition.log}). {_AGAIN}"
            )
        for custom_id, exchange in partition.requests.items():
            yield exchange, judgments.get(custom_id, missing)
        self._remove(partition)

    def _run_command(self, partition: Partition, policy: Policy) -> ExchangeJudgments:
        """Run the command on a partition; if it fails, yield the verdicts that it gave before the error."""
        total = len(partition.requests)
        output = partition.partial_output
        output.unlink(missing_ok=True)  # a process of this number was killed here, and answered nothing
        placeholders = {
            "input": str(partition.input.resolve()),
            "output": str(output.resolve()),
            "model": self.chat.settings.model,
            "base_url": self.chat.settings.base_url,
        }
        logger.info("The batch command answers %d requests; it prints into %s", total, partition.log)
        self.usage.requests += total
        code = run_command(fill_placeholders(self.settings.command, placeholders), partition.log)
        has_output = output.exists()
        if code == 0 and has_output:
            output.replace(partition.output)
            return
        judgments = self._read_answered(partition, [output] if has_output else [], policy)
        for custom_id, judgment in judgments.items():
            yield partition.requests[custom_id], judgment
        ending = (
            f"ended with exit code {code}"
            if code
            else "ended well and wrote nothing in the place of {output}"
        )
        raise OracleError(
            f"The batch command {ending}, on {partition.input}. It had answered {len(judgments)} of {total} "
            f"requests; these are judged. {_AGAIN} Its last lines, from {partition.log}:\n"
            f"{read_log_tail(partition.log)}"
        )

    def _read_answered(
        self, partition: Partition, files: Iterable[Path], policy: Policy
    ) -> dict[str, Judgment]:
        """Return judgments by custom_id without the faults, which are retried."""
        judgments = self._read(partition, files, policy)
        return {custom_id: judgment for custom_id, judgment in judgments.items() if not judgment.fault}

    def _read(self, partition: Partition, files: Iterable[Path], policy: Policy) -> dict[str, Judgment]:
        """Return the judgments of all replies in these files, by custom_id."""
        judgments: dict[str, Judgment] = {}
        n_unknown = 0
        for reply in chain.from_iterable(map(read_replies, files)):
            if reply is None or reply[0] not in partition.requests:
                n_unknown += 1
                continue
            custom_id, answer = reply
            if not isinstance(answer, Failure):
                add_usage(answer, self.chat.settings, self.usage)
            judgments[custom_id] = _merge(judgments.get(custom_id), self.chat.read(answer, policy))
        if n_unknown:
            logger.warning("%d lines in %s are no reply to any request", n_unknown, partition.folder)
        return judgments

    def _remove(self, partition: Partition) -> None:
        """Delete the files of a partition whose verdicts have been read, or mark them as judged."""
        if self.settings.keep_files:
            partition.mark_judged()
        else:
            shutil.rmtree(partition.folder)


def _merge(first: Judgment | None, second: Judgment) -> Judgment:
    """Return the judgment of two replies to one request: a verdict beats a fault, two verdicts must agree."""
    if first is None or (first.fault and first.reason != _CONTRADICTION):
        return second
    if second.fault or second.complies == first.complies:
        return first
    return Judgment(None, 0.0, reason=_CONTRADICTION, oracle=first.oracle, fault=True)
