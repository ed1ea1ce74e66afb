"""The chat oracle by files: requests are written, a command answers them, and its replies are read."""

import logging
import shutil
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from realignment.chat_client.client import Failure, fill_in
from realignment.chat_client.usage import Usage, count
from realignment.oracles.batch_files import Partition, Request, read_replies, write_partitions, write_request
from realignment.oracles.chat import ChatOracle
from realignment.oracles.commands import fill_places, last_lines, require_command, run
from realignment.oracles.protocol import Judgments, in_order
from realignment.parameters import BatchParameters
from realignment.policy import Policy
from realignment.records import Exchange, Judgment, OracleError

logger = logging.getLogger(__name__)

_SILENCE = 50
_MISSING = "no reply: the command ended well, and wrote no line for this request"
_TWO = "no reply: the command wrote two, with different verdicts"
_AGAIN = "Run again: only what is missing is asked."
Verdicts = Generator[tuple[Exchange, Judgment], None, None]


@dataclass(frozen=True)
class BatchOracle:
    """Asks what `chat` would ask and reads replies as it would, by files in OpenAI's batch format.

    Requests about one prompt stand side by side, each with the policy first, so that a server that keeps
    prefixes reads each beginning once. What a killed run has left is used: replies that no run has judged
    yet, to files of requests that are equal to the last byte.

    Attributes:
        chat: Wording, settings and identity, so that verdicts are its own in the verdict store.
        settings: The command, and where the files are kept.
        refresh: Use no replies that an earlier run has left.
    """

    chat: ChatOracle
    settings: BatchParameters
    refresh: bool = False

    @property
    def name(self) -> str:
        """That of `chat`."""
        return self.chat.name

    @property
    def identity(self) -> str:
        """That of `chat`: how it is asked changes no verdict."""
        return self.chat.identity

    @property
    def usage(self) -> Usage:
        """That of `chat`."""
        return self.chat.usage

    def __call__(self, exchanges: Sequence[Exchange], policy: Policy) -> list[Judgment]:
        """One judgment per exchange; equal exchanges are asked about once."""
        return in_order(self, exchanges, policy)

    def stream(self, exchanges: Sequence[Exchange], policy: Policy) -> Judgments:
        """Judgments whenever a file of requests has been answered.

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
            with closing(self._judge(self._requests(positions, policy), policy)) as verdicts:
                for exchange, judgment in verdicts:
                    self.usage.asked += len(positions[exchange])
                    yield from ((position, judgment) for position in positions[exchange])
        except OSError as error:
            raise OracleError(
                f"The files in {self.settings.folder} (`judging.vllm_batch.folder`) cannot be written or "
                f"read, or the command cannot be started: {error}. {_AGAIN}"
            ) from error

    def _requests(self, exchanges: Iterable[Exchange], policy: Policy) -> Iterator[Request]:
        ordered = sorted(exchanges, key=lambda e: (e.domain or "", e.prompt, e.response))
        for exchange, body in zip(ordered, self.chat.bodies(ordered, policy), strict=True):
            yield write_request(exchange, fill_in(body, self.chat.settings))

    def _judge(self, requests: Iterable[Request], policy: Policy) -> Verdicts:
        folder, settings = Path(self.settings.folder), self.settings
        limits = settings.max_requests, settings.max_megabytes * 1e6
        with closing(write_partitions(requests, folder, *limits)) as partitions:
            for partition in partitions:
                yield from self._judge_partition(partition, policy)

    def _judge_partition(self, partition: Partition, policy: Policy) -> Verdicts:
        if self.refresh or partition.is_judged():
            partition.forget_replies()
        if not partition.output.exists():
            if known := self._scored(partition, partition.broken_off(), policy):
                logger.info("%d replies that a killed run has left are used", len(known))
                yield from ((partition.requests[custom_id], j) for custom_id, j in known.items())
                rest = [e for custom_id, e in partition.requests.items() if custom_id not in known]
                yield from self._judge(self._requests(rest, policy), policy)
                return self._put_away(partition)
            yield from self._ask(partition, policy)
        else:
            logger.info("Replies that no run has judged yet are used: %s", partition.output)
        judgments = self._read(partition, [partition.output], policy)
        missing = Judgment(None, 0.0, reason=_MISSING, oracle=self.name, fault=True)
        if len(partition.requests) >= _SILENCE and all(j.fault for j in judgments.values()):
            partition.set_judged()
            first = next(iter(judgments.values()), missing)
            raise OracleError(
                f"The batch command has answered none of the {len(partition.requests)} requests in "
                f"{partition.input}: {first.reason}. See to it ({partition.log}). {_AGAIN}"
            )
        for custom_id, exchange in partition.requests.items():
            yield exchange, judgments.get(custom_id, missing)
        self._put_away(partition)

    def _ask(self, partition: Partition, policy: Policy) -> Verdicts:
        """Have the command answer. Where it fails, the verdicts that it gave come before the error."""
        output, total = partition.unfinished, len(partition.requests)
        output.unlink(missing_ok=True)  # a process of this number was killed here, and answered nothing
        places = {"input": str(partition.input.resolve()), "output": str(output.resolve())}
        server = {"model": self.chat.settings.model, "base_url": self.chat.settings.base_url}
        logger.info("The batch command answers %d requests; it prints into %s", total, partition.log)
        self.usage.requests += total
        code = run(fill_places(self.settings.command, places | server), partition.log)
        written = output.exists()
        if code == 0 and written:
            output.replace(partition.output)
            return
        known = self._scored(partition, [output] if written else [], policy)
        yield from ((partition.requests[custom_id], j) for custom_id, j in known.items())
        ended = (
            f"ended with exit code {code}"
            if code
            else "ended well and wrote nothing in the place of {output}"
        )
        raise OracleError(
            f"The batch command {ended}, on {partition.input}. It had answered {len(known)} of {total} "
            f"requests; these are judged. {_AGAIN} Its last lines, from {partition.log}:\n"
            f"{last_lines(partition.log)}"
        )

    def _scored(self, partition: Partition, files: Iterable[Path], policy: Policy) -> dict[str, Judgment]:
        """Without faults, which are asked again."""
        judgments = self._read(partition, files, policy)
        return {custom_id: judgment for custom_id, judgment in judgments.items() if not judgment.fault}

    def _read(self, partition: Partition, files: Iterable[Path], policy: Policy) -> dict[str, Judgment]:
        judgments: dict[str, Judgment] = {}
        strange = 0
        for reply in chain.from_iterable(map(read_replies, files)):
            if reply is None or reply[0] not in partition.requests:
                strange += 1
                continue
            custom_id, answer = reply
            if not isinstance(answer, Failure):
                count(answer, self.chat.settings, self.usage)
            judgments[custom_id] = _settle(judgments.get(custom_id), self.chat.read(answer, policy))
        if strange:
            logger.warning("%d lines in %s are no reply to any request", strange, partition.folder)
        return judgments

    def _put_away(self, partition: Partition) -> None:
        if self.settings.keep_files:
            partition.set_judged()
        else:
            shutil.rmtree(partition.folder)


def _settle(known: Judgment | None, found: Judgment) -> Judgment:
    """Of two replies to one request: the answer rather than the fault, and none where the verdicts differ."""
    if known is None or (known.fault and known.reason != _TWO):
        return found
    if found.fault or found.complies == known.complies:
        return known
    return Judgment(None, 0.0, reason=_TWO, oracle=known.oracle, fault=True)
