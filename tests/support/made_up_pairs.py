"""Pairs and oracles made up for tests of what happens around the judgments."""

from dataclasses import dataclass, field

import pandas as pd

from realignment.policy import Policy
from realignment.records import Judgment

POLICY = Policy(name="advice", version="2", text="Be careful.")


def make_pairs(*rows: dict, **columns) -> pd.DataFrame:
    """Cleaned pairs; a row gives only what matters for its test."""
    defaults = {"domain": None, "messages": None, "correction": None}
    filled = []
    for number, row in enumerate(rows):
        texts = {"pair_id": f"p{number}", "prompt": f"Prompt {number}?"}
        texts |= {"chosen": f"chosen {number}", "rejected": f"rejected {number}"}
        filled.append(texts | defaults | row)
    table = pd.DataFrame(filled, columns=list(dict.fromkeys(key for row in filled for key in row)))
    for name in ("chosen_complies", "rejected_complies"):
        if name in table:
            table[name] = pd.array(table[name], dtype="boolean")
    return table.assign(**columns)


@dataclass(frozen=True)
class ScriptedOracle:
    """Says of a response what the script says: complies, or complies and confidence; else unscored."""

    script: dict
    name: str = "scripted"
    asked: list = field(default_factory=list)

    def __call__(self, exchanges, policy):
        self.asked.extend(exchanges)
        return [self._judge(exchange.response) for exchange in exchanges]

    def _judge(self, response):
        said = self.script.get(response)
        complies, confidence = said if isinstance(said, tuple) else (said, 0.0 if said is None else 1.0)
        broken = ("rule-a", "rule-b") if complies is False else ()
        return Judgment(complies, confidence, rules_broken=broken, reason="as scripted", oracle=self.name)
