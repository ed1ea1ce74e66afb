"""A store keeps values by key; batches are written as they fill, and the rest whatever ends the run.

Disks that are full, files that are damaged or locked, and kills: `tests/oracles/test_cached.py`.
"""

import sqlite3
from contextlib import closing
from dataclasses import dataclass

import pytest

from realignment.chat_client.store import BATCH_SIZE, BatchWriter, SqliteStore, StoreError


@dataclass(frozen=True)
class NumberStore(SqliteStore[int]):
    value = "number"
    setting = "tests.number_store"
    table = "numbers"
    columns = ("number INTEGER", "square INTEGER NOT NULL")

    def to_cells(self, value):
        return value, value**2

    def from_cells(self, cells):
        number, square = cells
        if number**2 != square:
            raise ValueError(f"{square} is no square of {number}")
        return number


def key(number):
    return number.to_bytes(4, "big")


@pytest.fixture
def store(tmp_path):
    return NumberStore(tmp_path / "a new folder" / "numbers.sqlite")


def test_values_are_found_by_their_keys_in_any_number(store):
    store.write({key(n): n for n in range(1300)})
    assert store.look_up([key(n) for n in range(0, 2600, 2)]) == {key(n): n for n in range(0, 1300, 2)}
    store.write({key(3): 5})
    assert store.look_up([key(3)]) == {key(3): 5}


def test_a_damaged_value_is_said_with_the_parameter_that_names_the_file(store):
    store.write({key(3): 3})
    with closing(sqlite3.connect(store.path)) as connection, connection:
        connection.execute("UPDATE numbers SET square = 8")
    with pytest.raises(StoreError, match=r"number store .*a row is no number.*`tests\.number_store`"):
        store.look_up([key(3)])


def test_batches_are_written_as_they_fill_and_the_rest_at_an_error():
    batches = []

    def break_off():
        with BatchWriter(batches.append) as writer:
            for n in range(BATCH_SIZE + 3):
                writer.add(key(n), n)
            assert [len(batch) for batch in batches] == [BATCH_SIZE]
            raise RuntimeError("the server broke off")

    with pytest.raises(RuntimeError, match="broke off"):
        break_off()
    assert [len(batch) for batch in batches] == [BATCH_SIZE, 3]
    assert list(batches[1].values()) == [BATCH_SIZE, BATCH_SIZE + 1, BATCH_SIZE + 2]


def test_a_small_batch_is_written_when_it_is_old(monkeypatch):
    monkeypatch.setattr("realignment.chat_client.store.BATCH_S", -1.0)
    batches = []
    with BatchWriter(batches.append) as writer:
        writer.add(key(1), 1)
        assert batches == [{key(1): 1}]
