"""Which keys earlier parts of a table had, in 8 bytes a key."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]


def hash_key(key: object) -> int:
    """64 bits of BLAKE2b: of 10 million keys two are equal by chance with a probability of 3 in a million."""
    # Lone surrogates are rejected elsewhere, not here; `repr` tells a text from None, and where each ends.
    return int.from_bytes(hashlib.blake2b(repr(key).encode("utf-8", "surrogatepass"), digest_size=8).digest())


def hash_keys(keys: Iterable[object]) -> Hashes:
    """`hash_key` of each."""
    return np.fromiter(map(hash_key, keys), np.uint64)


@dataclass
class Seen:
    """Sorted hashes, in a few arrays that are at least twice as long as the one after them."""

    arrays: list[Hashes] = field(default_factory=list)

    def __len__(self) -> int:
        return sum(map(len, self.arrays))

    def know(self, hashes: Hashes) -> npt.NDArray[np.bool_]:
        """Whether each of these was there before."""
        found = np.zeros(len(hashes), bool)
        for array in self.arrays:
            found |= array[np.searchsorted(array, hashes).clip(max=len(array) - 1)] == hashes
        return found

    def add(self, hashes: Hashes) -> None:
        """Remember these; every hash is moved a logarithmic number of times."""
        added = np.sort(hashes)
        while self.arrays and len(self.arrays[-1]) < 2 * len(added):
            added = np.sort(np.concatenate([self.arrays.pop(), added]), kind="stable")
        if len(added):
            self.arrays.append(added)
