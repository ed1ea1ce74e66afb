"""Random samples of pairs that are read part by part; the parts do not change the sample."""

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
    """The pairs that `judging.measure_stability` would draw from the whole table, and their judgments.

    Attributes:
        drawn: Positions of the drawn pairs in the whole table.
        position: Pairs seen so far.
        pairs: Drawn pairs, by part.
        judgments: Their judgments, by part.
    """

    drawn: npt.NDArray[np.int64]
    position: int = 0
    pairs: list[pd.DataFrame] = field(default_factory=list)
    judgments: list[pd.DataFrame] = field(default_factory=list)

    @classmethod
    def draw(cls, pairs: int, sample: int, seed: int) -> "RepeatedPairs":
        """Draw the positions of the pairs.

        Args:
            pairs: Pairs of the whole table.
            sample: Responses to judge again, rounded up to whole pairs.
            seed: Seed of the sample.

        Returns:
            The sample, before any pair is read.
        """
        # `DataFrame.sample` of the same length and seed draws the same positions, whatever the columns are.
        table = pd.Series(np.zeros(pairs, bool))
        drawn = table.sample(min(math.ceil(sample / 2), pairs), random_state=seed)
        return cls(drawn.index.to_numpy())

    def add(self, part: pd.DataFrame, judgments: pd.DataFrame) -> None:
        """Store those of the next pairs that were drawn.

        Args:
            part: The next pairs of the table.
            judgments: Judgments of all their responses.
        """
        positions = self.drawn - self.position  # in this part
        rows = part.iloc[positions[(positions >= 0) & (positions < len(part))]]
        self.position += len(part)
        self.pairs.append(rows)
        self.judgments.append(judgments[judgments["pair_id"].isin(rows["pair_id"])])

    def measure(self, policy: Policy, oracle: Oracle, sample: int, seed: int) -> float | None:
        """Return the stability of the oracle, judged without the verdict store.

        Args:
            policy: The policy to judge by.
            oracle: The oracle that judged the pairs.
            sample: As in `draw`.
            seed: As in `draw`.

        Returns:
            As `judging.measure_stability`.
        """
        pairs = pd.concat(self.pairs, ignore_index=True)
        judgments = pd.concat(self.judgments, ignore_index=True)
        fresh = without_store(oracle)
        return judging.measure_stability(pairs, policy, fresh, judgments, sample=sample, seed=seed)


@dataclass
class RetainDraw:
    """A number for every pair: 0, and for RETAIN pairs a positive hash of the seed and the pair's id.

    The RETAIN pairs with the smallest numbers are a simple random sample, whatever the parts and their order.

    Attributes:
        seed: Seed of the sample.
        parts: Numbers by part, shape (rows,) each.
    """

    seed: int
    parts: list[npt.NDArray[np.uint64]] = field(default_factory=list)

    def add(self, triaged: pd.DataFrame) -> None:
        """Compute the numbers of the next pairs."""
        is_retain = triaged["disposition"] == Disposition.RETAIN
        numbers = map(self._compute_number, triaged["pair_id"], is_retain)
        self.parts.append(np.fromiter(numbers, np.uint64, len(triaged)))

    def _compute_number(self, pair_id: str, is_retain: bool) -> int:
        if not is_retain:
            return 0
        text = f"retain:{self.seed}:{pair_id}".encode()
        # 63 bits of the hash, and one more, so that it is positive and fits into 64 bits.
        return 1 + (int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 1)

    def numbers(self, disposition: Disposition | None = None) -> npt.NDArray[np.uint64]:
        """Return the numbers of all pairs, or of the RETAIN pairs, in order."""
        numbers = np.concatenate(self.parts)
        return numbers if disposition is None else numbers[numbers > 0]

    def find_limit(self, drawn: int) -> np.uint64:
        """Return the largest number of a sample of so many RETAIN pairs."""
        return np.uint64(np.partition(self.numbers(Disposition.RETAIN), drawn - 1)[drawn - 1])
