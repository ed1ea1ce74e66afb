"""A set of the keys in earlier batches of a table, at 8 bytes per key."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]


def hash_key(key: object) -> int:
    """Return 64 bits of BLAKE2b over a key.

    Among 10 million keys, any two have the same hash by chance with a probability of 3 in a million.
    """
    # `repr` tells a text from None, and shows where each text ends. Lone surrogates must not fail here:
    # `screening` rejects them with a reason.
    return int.from_bytes(hashlib.blake2b(repr(key).encode("utf-8", "surrogatepass"), digest_size=8).digest())


def hash_keys(keys: Iterable[object]) -> Hashes:
    """Return `hash_key` of each key, shape (keys,)."""
    return np.fromiter(map(hash_key, keys), np.uint64)


@dataclass
class SeenKeys:
    """A set of hashes that grows batch by batch.

    Attributes:
        arrays: Sorted hashes; each array is at least twice as long as the one after it, so there are few.
    """

    arrays: list[Hashes] = field(default_factory=list)

    def __len__(self) -> int:
        return sum(map(len, self.arrays))

    def contains(self, hashes: Hashes) -> npt.NDArray[np.bool_]:
        """Return whether each of the hashes was added before, shape (hashes,)."""
        is_member = np.zeros(len(hashes), bool)
        for array in self.arrays:
            # Where the hash stands if it is there; past the end, the last element cannot be equal.
            positions = np.searchsorted(array, hashes).clip(max=len(array) - 1)
            is_member |= array[positions] == hashes
        return is_member

    def add(self, hashes: Hashes) -> None:
        """Add hashes to the set; each of n hashes is moved O(log n) times over all calls."""
        merged = np.sort(hashes)
        # Merge with shorter arrays, so that each remains at least twice as long as the next.
        while self.arrays and len(self.arrays[-1]) < 2 * len(merged):
            # A stable sort of two sorted runs is a merge: linear time.
            merged = np.sort(np.concatenate([self.arrays.pop(), merged]), kind="stable")
        if len(merged):
            self.arrays.append(merged)
