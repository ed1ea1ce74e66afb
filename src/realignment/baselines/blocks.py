"""Make the tables of the page as texts, which Markdown and HTML only have to set."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pandas as pd

from realignment.baselines import wording
from realignment.baselines.answers import COMPLETE
from realignment.baselines.comparison import Comparison
from realignment.baselines.tables import DONE, FAILED, records
from realignment.reports import formats

ORDER = (
    "agreement", "preference_accuracy", "over_refusal", "capability", "logratio_preferred",
    "logratio_dispreferred", "logratio_retained", "kl_drift", "answer_tokens",
)  # fmt: skip
"""Metrics as they stand on the page; others follow."""

PARTIAL = "†"
"""Marks a figure whose interval does not cover seeds and prompts."""


class Entry(NamedTuple):
    """What stands in one place of a table."""

    text: str
    interval: str = ""
    strong: bool = False


@dataclass(frozen=True, slots=True)
class Block:
    """A table of the page.

    Attributes:
        title: Above it.
        columns: Headings; the first is of the names of the rows.
        rows: As many entries as headings each.
        note: Below it.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Entry, ...], ...]
    note: str = ""


def make_blocks(comparison: Comparison, name: str) -> list[Block]:
    """Make the tables of a set; those without rows are left out.

    Args:
        comparison: The figures.
        name: The set.

    Returns:
        Results, differences of the headline, side effects, other groups and judges, cells that are not there.
    """
    blocks = [
        results_block(comparison, name),
        differences_block(comparison, name),
        side_effects_block(comparison, name),
        others_block(comparison, name),
        absent_block(comparison, name),
    ]
    return [block for block in blocks if block.rows]


def order_metrics(metrics: Sequence[str], headline: str) -> list[str]:
    """Order metrics for the page: the headline, those of `ORDER`, the others as they come."""
    found = list(dict.fromkeys(metrics))
    ranks = {kind: rank for rank, kind in enumerate(ORDER)}
    return sorted(
        found, key=lambda metric: (metric != headline, ranks.get(wording.kind_of(metric), len(ranks)))
    )


def results_block(comparison: Comparison, name: str) -> Block:
    """Make the table of all arms of a set: leading figures with intervals, and costs."""
    leading = comparison.leading(name)
    metrics = order_metrics(leading["metric"].tolist(), comparison.headline(name))
    by_place = {(row["arm"], row["metric"]): row for row in records(leading)}
    rows = []
    for arm in comparison.arms(name):
        title = Entry(arm, strong=arm == comparison.choices.comparator)
        seeds = Entry(wording.count_seeds(comparison, name, arm))
        figures = [_mean_entry(by_place.get((arm, metric))) for metric in metrics]
        rows.append((title, seeds, *figures, *_costs(comparison, name, arm)))
    sources = [_describe_source(leading[leading["metric"] == metric]) for metric in metrics]
    note = (
        f"Means over seeds and items, with 95 % intervals; {PARTIAL}: of prompts alone, or of seeds alone. "
        "Seconds and tokens are means over seeds, peak memory is the largest. "
        f"Items: {'; '.join(sources)}."
    )
    headings = [wording.label_of(metric) for metric in metrics]
    return Block(
        "Results and costs",
        ("method", "seeds", *headings, "seconds", "tokens", "peak MiB"),
        tuple(rows),
        note,
    )


def _describe_source(rows: pd.DataFrame) -> str:
    """Metric, group, judge and items, which may be fewer for an arm with items that are not scored."""
    row = rows.iloc[0]
    judge = f", judge {row['judge']}" if row["judge"] else ""
    fewest, most = int(rows["n"].min()), int(rows["n"].max())
    n = str(most) if fewest == most else f"{fewest} to {most}"
    return f"{wording.name_of(str(row['metric']))} – {formats.name_of(str(row['group']))}{judge}, n = {n}"


def _mean_entry(row: dict[str, Any] | None) -> Entry:
    if row is None:
        return Entry("")
    bounds = wording.interval(row["metric"], row["low"], row["high"])
    mark = f" {PARTIAL}" if bounds and row["covers"] not in COMPLETE else ""
    return Entry(wording.value(row["metric"], row["value"]), bounds + mark)


def _costs(comparison: Comparison, name: str, arm: str) -> list[Entry]:
    cells = comparison.cells
    done = cells[(cells["set"] == name) & (cells["arm"] == arm) & (cells["status"] == DONE)]
    figures = (done["seconds"].mean(), done["tokens"].mean(), done["peak_mib"].max())
    return [Entry(formats.MISSING if pd.isna(number) else f"{number:,.0f}") for number in figures]


def differences_block(comparison: Comparison, name: str) -> Block:
    """Make the table of the headline's differences."""
    metric = comparison.headline(name)
    table = comparison.asked(name)
    table = table[table["metric"] == metric]
    unit = wording.unit_of(metric)
    note = (
        "The 95 % interval and p are of one comparison by itself, by a t test over seeds and prompts. "
        f"Corrected: by Holm over the {_tests(table)} comparisons of this table. Bold: the corrected p is "
        "below 0.05, which is where the corrected interval excludes 0. Percentiles: of the bootstrap over "
        "seeds and prompts, too narrow with few seeds."
    )
    columns = (
        "difference", unit or "by", "95 % interval", "corrected interval", "percentiles", "p", "corrected p",
        "covers",
    )  # fmt: skip
    rows = tuple(_difference_entries(metric, row) for row in records(table))
    return Block(f"Differences: {wording.name_of(metric)}", columns, rows, note)


def _difference_entries(metric: str, row: dict[str, Any]) -> tuple[Entry, ...]:
    intervals = [
        wording.interval(metric, row[f"{kind}low"], row[f"{kind}high"], signed=True) or formats.MISSING
        for kind in ("", "holm_", "bootstrap_")
    ]
    return (
        Entry(f"{row['first']} − {row['second']}"),
        Entry(wording.difference(metric, row["difference"]), strong=row["p_holm"] < wording.ALPHA),
        *map(Entry, intervals),
        Entry(formats.p_value(row["p_value"])),
        Entry(formats.p_value(row["p_holm"])),
        Entry(str(row["covers"])),
    )


def _tests(table: pd.DataFrame) -> int:
    return int(table["comparisons"].max()) if len(table) else 0


def side_effects_block(comparison: Comparison, name: str) -> Block:
    """Make the matrix of all other differences: pairs of arms down, metrics across."""
    table = comparison.asked(name)
    table = table[table["metric"] != comparison.headline(name)]
    metrics = order_metrics(table["metric"].tolist(), comparison.headline(name))
    by_place = {(row["first"], row["second"], row["metric"]): row for row in records(table)}
    rows = [
        (
            Entry(f"{first} − {second}"),
            *(_corrected_entry(by_place.get((first, second, metric))) for metric in metrics),
        )
        for first, second in dict.fromkeys(zip(table["first"], table["second"], strict=True))
    ]
    note = (
        f"Shares in points. Intervals are corrected by Holm over the comparisons of each column, up to "
        f"{_tests(table)}; bold: the corrected p is below 0.05."
    )
    return Block("Side effects", ("difference", *map(wording.label_of, metrics)), tuple(rows), note)


def _corrected_entry(row: dict[str, Any] | None) -> Entry:
    if row is None:
        return Entry("")
    metric = row["metric"]
    bounds = wording.interval(metric, row["holm_low"], row["holm_high"], signed=True)
    return Entry(wording.difference(metric, row["difference"]), bounds, row["p_holm"] < wording.ALPHA)


def others_block(comparison: Comparison, name: str) -> Block:
    """Make the table of shares by the groups and judges that do not lead."""
    means = comparison.means
    rest = means[(means["set"] == name) & ~means["leads"] & means["metric"].map(wording.is_share)]
    keys = list(dict.fromkeys(zip(rest["metric"], rest["group"], rest["judge"], strict=True)))
    by_place = {(row["arm"], row["metric"], row["group"], row["judge"]): row for row in records(rest)}
    rows = [
        (Entry(arm), *(_mean_entry(by_place.get((arm, *key))) for key in keys))
        for arm in comparison.arms(name)
    ]
    headings = [
        ", ".join([wording.name_of(metric), formats.name_of(group), *([f"judge {judge}"] if judge else [])])
        for metric, group, judge in keys
    ]
    return Block("Other groups and judges", ("method", *headings), tuple(rows) if keys else ())


def absent_block(comparison: Comparison, name: str) -> Block:
    """Make the table of the cells that failed or are not there yet."""
    cells = comparison.cells
    failed = cells[(cells["set"] == name) & (cells["status"] == FAILED)]
    missing = comparison.missing[comparison.missing["set"] == name]
    rows = [
        (Entry(str(row["arm"])), Entry(str(row["seed"])), Entry("failed"), Entry(str(row["reason"])))
        for row in records(failed)
    ]
    for arm, part in missing.groupby("arm", sort=False):
        seeds = ", ".join(map(str, part["seed"]))
        rows.append((Entry(str(arm)), Entry(seeds), Entry("missing"), Entry("not run yet")))
    return Block("Cells that are not there", ("method", "seed", "status", "reason"), tuple(rows))
