"""Samples of pairs that come part by part, and do not depend on the parts."""

import hashlib
import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pandas as pd

from realignment import judging
from realignment.oracles import Oracle
from realignment.oracles.factory import without_store
from realignment.policy import Policy
from realignment.records import Disposition


@dataclass
class RepeatedPairs:
    """The pairs that `judging.repeat_stability` would draw of all, and their judgments."""

    wanted: npt.NDArray[np.int64]
    position: int = 0
    pairs: list[pd.DataFrame] = field(default_factory=list)
    judgments: list[pd.DataFrame] = field(default_factory=list)

    @classmethod
    def draw(cls, pairs: int, sample: int, seed: int) -> "RepeatedPairs":
        """Of so many pairs, for a sample of so many responses."""
        drawn = pd.Series(np.zeros(pairs, bool)).sample(min(math.ceil(sample / 2), pairs), random_state=seed)
        return cls(drawn.index.to_numpy())

    def add(self, part: pd.DataFrame, judgments: pd.DataFrame) -> None:
        """The next pairs; those that were drawn are kept."""
        here = self.wanted - self.position
        rows = part.iloc[here[(here >= 0) & (here < len(part))]]
        self.position += len(part)
        self.pairs.append(rows)
        self.judgments.append(judgments[judgments["pair_id"].isin(rows["pair_id"])])

    def measure(self, policy: Policy, oracle: Oracle, sample: int, seed: int) -> float | None:
        """`judging.repeat_stability`, past the verdict store."""
        pairs, judgments = (pd.concat(found, ignore_index=True) for found in (self.pairs, self.judgments))
        again = without_store(oracle)
        return judging.repeat_stability(pairs, policy, again, judgments, sample=sample, seed=seed)


@dataclass
class RetainDraw:
    """A number for every pair: 0, but of RETAIN pairs one above it, made of the seed and the pair's id.

    Those with the smallest numbers are a simple random sample, whatever the parts and their order are.
    """

    seed: int
    parts: list[npt.NDArray[np.uint64]] = field(default_factory=list)

    def add(self, triaged: pd.DataFrame) -> None:
        """The next pairs."""
        both = zip(triaged["pair_id"], triaged["disposition"] == Disposition.RETAIN, strict=True)
        self.parts.append(np.fromiter((self._number(*pair) for pair in both), np.uint64, len(triaged)))

    def _number(self, pair_id: str, retained: bool) -> int:
        if not retained:
            return 0
        text = f"retain:{self.seed}:{pair_id}".encode()
        return 1 + (int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 1)

    def numbers(self, disposition: Disposition | None = None) -> npt.NDArray[np.uint64]:
        """Of all pairs, or of the RETAIN pairs, in order."""
        numbers = np.concatenate(self.parts)
        return numbers if disposition is None else numbers[numbers > 0]

    def highest(self, drawn: int) -> np.uint64:
        """The number that so many RETAIN pairs are up to."""
        return np.uint64(np.partition(self.numbers(Disposition.RETAIN), drawn - 1)[drawn - 1])
