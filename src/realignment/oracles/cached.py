"""The verdict store: a run that was killed continues where it was, and no exchange is judged twice."""

import hashlib
import json
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm

from realignment.chat_client.store import BatchWriter, SqliteStore
from realignment.chat_client.usage import Usage
from realignment.oracles.protocol import CostlyOracle, Judgments, judge_in_order
from realignment.policy import Policy
from realignment.records import Exchange, Judgment


@dataclass(frozen=True)
class VerdictStore(SqliteStore[Judgment]):
    """A SQLite file of judgments by `verdict_key`."""

    value = "verdict"
    setting = "judging.verdict_store"
    table = "verdicts"
    columns = (
        "complies INTEGER",
        "confidence REAL NOT NULL",
        "rules_broken TEXT NOT NULL",
        "reason TEXT NOT NULL",
        "oracle TEXT NOT NULL",
    )

    def to_cells(self, value: Judgment) -> tuple[Any, ...]:
        """Return the cells of a judgment; `rules_broken` as a JSON list."""
        rules = json.dumps(value.rules_broken)
        return value.complies, value.confidence, rules, value.reason, value.oracle

    def from_cells(self, cells: Sequence[Any]) -> Judgment:
        """Return the judgment of a row's cells."""
        complies, confidence, rules_broken, reason, oracle = cells
        verdict = None if complies is None else bool(complies)
        return Judgment(verdict, float(confidence), tuple(json.loads(rules_broken)), reason, oracle)


def verdict_key(identity: str, policy: Policy, exchange: Exchange) -> bytes:
    """Return the sha256 of all that a verdict depends on: another oracle, policy or text has another key.

    Args:
        identity: Identity of the oracle: model, wording and settings.
        policy: The policy to judge by.
        exchange: What is judged.

    Returns:
        32 bytes.
    """
    parts = [identity, policy.digest, exchange.prompt, exchange.response, exchange.domain]
    return hashlib.sha256(json.dumps(parts).encode()).digest()


@dataclass(frozen=True)
class CachedOracle:
    """Answers from the store; the oracle judges only what is missing, and the same exchange only once.

    Verdicts are written as they come. Faults are not stored, so the next run judges those exchanges again.

    Attributes:
        oracle: Judges what the store does not have.
        store: Keeps the verdicts.
        refresh: Judge everything again, and replace what the store has.
    """

    oracle: CostlyOracle
    store: VerdictStore
    refresh: bool = False

    @property
    def name(self) -> str:
        """Name of the oracle, in reports as without the store."""
        return self.oracle.name

    @property
    def identity(self) -> str:
        """Identity of the oracle, which verdicts are stored under."""
        return self.oracle.identity

    @property
    def usage(self) -> Usage:
        """What the oracle has cost so far, with the number of answers from the store."""
        return self.oracle.usage

    def __call__(self, exchanges: Sequence[Exchange], policy: Policy) -> list[Judgment]:
        """Return one judgment per exchange, in order."""
        return judge_in_order(self, exchanges, policy)

    def stream(self, exchanges: Sequence[Exchange], policy: Policy) -> Judgments:
        """Yield position and judgment of every exchange, those in the store first."""
        # Equal exchanges have one key, and so are judged once.
        positions: dict[bytes, list[int]] = {}
        identity = self.identity
        for position, exchange in enumerate(exchanges):
            positions.setdefault(verdict_key(identity, policy, exchange), []).append(position)
        stored = self.store.look_up([] if self.refresh else list(positions))
        for key, judgment in stored.items():
            self.usage.stored += len(positions[key])
            for position in positions[key]:
                yield position, judgment
        missing = {key: exchanges[places[0]] for key, places in positions.items() if key not in stored}
        for key, judgment in self._judge(missing, policy):
            for position in positions[key]:
                yield position, judgment

    def _judge(
        self, exchanges: dict[bytes, Exchange], policy: Policy
    ) -> Generator[tuple[bytes, Judgment], None, None]:
        """Yield the oracle's judgments by key, and store them batch by batch."""
        keys = list(exchanges)
        judgments = self.oracle.stream(list(exchanges.values()), policy)
        bar = tqdm(total=len(keys), desc=self.name, unit="verdict", leave=False, disable=None)
        # The writer stores the rest also where the oracle fails: verdicts cost time and money.
        with BatchWriter(self.store.write) as writer, closing(judgments), bar:
            for position, judgment in judgments:
                if not judgment.fault:
                    writer.add(keys[position], judgment)
                bar.update()
                yield keys[position], judgment
