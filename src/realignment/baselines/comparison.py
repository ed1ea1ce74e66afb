"""Compare the methods of every set: which figures lead, what is compared, and what is corrected together."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
import pandas as pd

from realignment.baselines.differences import RESAMPLES, find_untrained, tabulate_differences, tabulate_means
from realignment.baselines.holm import correct_table
from realignment.baselines.tables import CELL, check_tables, label_arms
from realignment.records import DataError

HEADLINES = ("agreement", "preference_accuracy")
"""The headline of a set is the first that it has: a set of labels has no generated answers to judge."""

LEADING_GROUPS = ("test", "regulated", "overall", "held_out", "all")
"""Where a metric has several groups and none is chosen, the first of these that it has leads."""

ASKED, ALL_PAIRS = "asked", "all pairs"
"""Which comparisons of a metric are corrected together: every arm against the comparator with the questions,
or all pairs of arms. Metrics are not corrected for each other: the headline is named before, and to correct
the others for their number would hide what they are shown for, the harm that a method does."""


@dataclass(frozen=True, slots=True)
class Question:
    """A question that a difference answers. Ask it before the figures are known.

    Attributes:
        text: As it is printed.
        first: The arm that is expected to be better, as `tables.label_arms` names it.
        second: The arm that it is compared with.
        metric: What decides; ``""``: the headline of the set.
    """

    text: str
    first: str
    second: str
    metric: str = ""


@dataclass(frozen=True, slots=True)
class Choices:
    """What is chosen before the figures are known.

    Attributes:
        comparator: The arm that all others are compared with.
        questions: Asked of every set.
        judges: Set → metric → the judge that leads, where there are several.
        groups: Set → metric → the group that leads, where there are several and none of `LEADING_GROUPS`, or
            another than the first of these.
        resamples: Of the bootstrap.
        seed: Of the bootstrap.
    """

    comparator: str
    questions: tuple[Question, ...] = ()
    judges: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    groups: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    resamples: int = RESAMPLES
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Comparison:
    """All figures of the page.

    Attributes:
        choices: What was chosen.
        cells: The cells, finished and failed, with their column `arm`.
        missing: Cells that are planned and neither finished nor failed; columns of `tables.CELL` and `arm`.
        means: From `differences.tabulate_means`; `leads` tells the figures that the page is about.
        differences: From `differences.tabulate_differences`, of leading figures. Each metric of a set is
            corrected by itself (`holm.correct_table`), and so is each `family`, `ASKED` or `ALL_PAIRS`.
    """

    choices: Choices
    cells: pd.DataFrame
    missing: pd.DataFrame
    means: pd.DataFrame
    differences: pd.DataFrame

    @property
    def sets(self) -> list[str]:
        """The sets, in the order of the cells, then those of which every cell is missing."""
        return list(dict.fromkeys([*map(str, self.cells["set"]), *map(str, self.missing["set"])]))

    def arms(self, name: str) -> list[str]:
        """Return the arms of a set that have figures, in the order of the cells."""
        measured = set(self.means.loc[self.means["set"] == name, "arm"])
        of_set = self.cells.loc[self.cells["set"] == name, "arm"].unique()
        return [str(arm) for arm in of_set if arm in measured]

    def leading(self, name: str) -> pd.DataFrame:
        """Return the means of a set's leading figures."""
        return self.means[(self.means["set"] == name) & self.means["leads"]]

    def headline(self, name: str) -> str:
        """Return the metric that stands for a set; ``""`` where no cell is finished."""
        metrics = set(self.leading(name)["metric"])
        return next((metric for metric in HEADLINES if metric in metrics), "")

    def asked(self, name: str) -> pd.DataFrame:
        """Return the differences of a set from the comparator, and those that its questions ask for."""
        rows = self.differences
        return rows[(rows["set"] == name) & (rows["family"] == ASKED)]

    def all_pairs(self, name: str) -> pd.DataFrame:
        """Return the differences of all pairs of a set's arms, in its headline."""
        rows = self.differences
        return rows[(rows["set"] == name) & (rows["family"] == ALL_PAIRS)]


def compare(
    items: pd.DataFrame, cells: pd.DataFrame, choices: Choices, planned: pd.DataFrame | None = None
) -> Comparison:
    """Compare the arms of every set.

    Of each metric one group and one judge lead; the differences are of these alone: every arm against the
    comparator and the pairs that questions name, by every metric, and all pairs of arms by the headline.

    Args:
        items: Columns `tables.ITEM_COLUMNS`.
        cells: Columns `tables.CELL_COLUMNS`.
        choices: What was chosen before.
        planned: All cells that are to be, columns of `tables.CELL`; None: those that there are.

    Returns:
        The figures.

    Raises:
        DataError: The tables do not fit (`tables.check_tables`), the comparator is no arm of any cell, a set
            has no headline, or a metric has several groups or judges and none was chosen.
    """
    check_tables(items, cells)
    cells = cells.assign(arm=label_arms(cells))
    missing = _find_missing(planned, cells)
    arms = {*map(str, cells["arm"]), *map(str, missing["arm"])}
    if choices.comparator not in arms:
        raise DataError(
            f"The comparator {choices.comparator!r} is no arm of the cells; expected one of {sorted(arms)}."
        )
    rng = np.random.default_rng(choices.seed)
    untrained = find_untrained(cells)
    leading = _pick_leading(items, choices)
    means = tabulate_means(items, untrained=untrained, resamples=choices.resamples, rng=rng)
    leads = pd.MultiIndex.from_frame(means[list(leading.columns)]).isin(pd.MultiIndex.from_frame(leading))
    tables = []
    for name, rows in items.merge(leading).groupby("set", sort=False):
        for family, metric, pairs in _plan(str(name), rows, choices):
            table = tabulate_differences(
                rows[rows["metric"] == metric],
                pairs,
                untrained=untrained,
                resamples=choices.resamples,
                rng=rng,
            )
            tables.append(correct_table(table).assign(family=family))
    if not tables:
        raise DataError(
            "No cell is finished, so that there is nothing to compare; see the reasons in the cells."
        )
    differences = pd.concat(tables, ignore_index=True)
    return Comparison(choices, cells, missing, means.assign(leads=leads), differences)


def _find_missing(planned: pd.DataFrame | None, cells: pd.DataFrame) -> pd.DataFrame:
    if planned is None:
        return cells.loc[[], [*CELL, "arm"]]
    there = pd.MultiIndex.from_frame(cells[list(CELL)])
    missing = planned[~pd.MultiIndex.from_frame(planned[list(CELL)]).isin(there)]
    return missing[list(CELL)].assign(arm=label_arms(missing))


def _pick_leading(items: pd.DataFrame, choices: Choices) -> pd.DataFrame:
    """The group and the judge of every set and metric, as columns set, metric, group, judge."""
    rows = []
    for (name, metric), part in items.groupby(["set", "metric"], sort=False):
        groups = part["group"].unique().tolist()
        group = choices.groups.get(str(name), {}).get(str(metric), _first_group(groups))
        if group not in groups:
            raise DataError(
                f"{metric} of the set {name} has the groups {groups}, and {group!r} was chosen; choose in "
                "`groups` the one that leads."
            )
        judges = part.loc[part["group"] == group, "judge"].unique().tolist()
        judge = choices.judges.get(str(name), {}).get(str(metric), judges[0] if len(judges) == 1 else None)
        if judge not in judges:
            raise DataError(
                f"{metric} of the set {name} is by the judges {judges}, and {judge!r} was chosen; choose in "
                "`judges` the one that is measured best on such answers."
            )
        rows.append({"set": name, "metric": metric, "group": group, "judge": judge})
    return pd.DataFrame(rows, columns=["set", "metric", "group", "judge"])


def _first_group(groups: list[str]) -> str | None:
    if len(groups) == 1:
        return groups[0]
    return next((group for group in LEADING_GROUPS if group in groups), None)


Pairs = list[tuple[str, str]]


def _plan(name: str, rows: pd.DataFrame, choices: Choices) -> list[tuple[str, str, Pairs]]:
    """Family, metric and pairs of arms of every table of a set."""
    metrics = [str(metric) for metric in rows["metric"].unique()]
    headline = next((metric for metric in HEADLINES if metric in metrics), None)
    if headline is None:
        raise DataError(f"The set {name} has the metrics {metrics}; expected one of {list(HEADLINES)}.")
    arms = [str(arm) for arm in label_arms(rows).unique()]
    plan = []
    for metric in metrics:
        pairs = [(arm, choices.comparator) for arm in arms if arm != choices.comparator]
        for question in choices.questions:
            pair = (question.first, question.second)
            # The same comparison is one test, whichever way round it is asked.
            if (question.metric or headline) == metric and not {pair, pair[::-1]} & set(pairs):
                pairs.append(pair)
        plan.append((ASKED, metric, pairs))
    return [*plan, (ALL_PAIRS, headline, list(combinations(arms, 2)))]
