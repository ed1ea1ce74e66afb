"""One comparison that the tests of figures and pages share: two sets, a failed cell, a missing one."""

import pandas as pd
import pytest
from made_up_cells import SEEDS, made_up_cells, made_up_items

from realignment.baselines.comparison import Choices, Question, compare
from realignment.baselines.tables import CELL

QUESTIONS = (
    Question("Does triage pay?", "trace", "naive_dpo"),
    Question("Is the ceiling reached?", "dpo_gold", "trace"),
    Question("Do violating answers become less likely?", "trace", "sft", "logratio_dispreferred"),
    Question("What of U2A?", "u2a", "sft"),
)


@pytest.fixture(scope="session")
def tables():
    """Items, cells and the plan."""
    items = made_up_items()
    lost = (items["method"] == "npo_retain") & (items["seed"] == 3) & (items["set"] == "style")
    items = items[~lost].reset_index(drop=True)
    # A second judge of agreement, which does not lead.
    other = items[(items["metric"] == "agreement")].assign(judge="classifier")
    items = pd.concat([items, other], ignore_index=True)
    cells = made_up_cells(items, failed=[("style", "npo_retain", "", 3, "NaN | at step 7")])
    waiting = [
        {"set": "style", "method": "trace", "variant": "kl_weight=0.5", "seed": seed} for seed in SEEDS
    ]
    return items, cells, pd.concat([cells[list(CELL)], pd.DataFrame(waiting)], ignore_index=True)


@pytest.fixture(scope="session")
def choices():
    return Choices("trace", QUESTIONS, judges={"style": {"agreement": "rules"}}, resamples=200)


@pytest.fixture(scope="session")
def comparison(tables, choices):
    items, cells, planned = tables
    return compare(items, cells, choices, planned)
