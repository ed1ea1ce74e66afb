"""Oracles that misbehave in a worker, each in its own way: what the tests of a cluster need."""

import os
import signal
from dataclasses import dataclass, field

from realignment.oracles import Usage, judge_in_order
from realignment.records import Judgment


@dataclass
class Fragile:
    """Says complies; one response kills its process."""

    identity: str = "fragile"
    usage: Usage = field(default_factory=Usage)
    name: str = "fragile"

    def __call__(self, exchanges, policy):
        return judge_in_order(self, exchanges, policy)

    def stream(self, exchanges, policy):
        for position, exchange in enumerate(exchanges):
            if exchange.response == "poison":
                os.kill(os.getpid(), signal.SIGKILL)
            yield position, Judgment(True, 1.0, oracle=self.name)


def build_fragile(wanted):
    return Fragile()


def build_another_everywhere(wanted):
    return Fragile(identity=f"process {os.getpid()}")


def build_deadly(wanted):
    os.kill(os.getpid(), signal.SIGKILL)
