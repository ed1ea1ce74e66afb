"""Answer the questions of a comparison in one plain sentence each, from its figures alone."""

from collections.abc import Mapping
from typing import Any

from realignment.baselines import wording
from realignment.baselines.comparison import Comparison, Question
from realignment.baselines.crossed import Covers

COMPLETE = (str(Covers.ALL), str(Covers.UNTRAINED))
"""What an interval covers where nothing is left to say."""


def answer_questions(comparison: Comparison, name: str) -> list[tuple[str, str]]:
    """Answer every question for one set; without any, the comparator is compared with every other arm.

    Args:
        comparison: The figures.
        name: The set.

    Returns:
        Question (``""`` where none was asked) and answer.
    """
    choices = comparison.choices
    others = [arm for arm in comparison.arms(name) if arm != choices.comparator]
    questions = choices.questions or tuple(Question("", choices.comparator, arm) for arm in others)
    return [(question.text, _answer(comparison, name, question)) for question in questions]


def _answer(comparison: Comparison, name: str, question: Question) -> str:
    metric = question.metric or comparison.headline(name)
    first, second = question.first, question.second
    absent = [arm for arm in (first, second) if arm not in comparison.arms(name)]
    if absent:
        return f"Not answered on {name}: no cell of {' and of '.join(absent)} is finished."
    row = _find(comparison, name, metric, first, second)
    if row is None:
        return (
            f"Not answered on {name}: {wording.name_of(metric)} is not measured of both {first} and {second}."
        )
    return f"On {name}, {describe_difference(row)}"


def _find(comparison: Comparison, name: str, metric: str, first: str, second: str) -> dict[str, Any] | None:
    """The row of first − second, turned round where the table has second − first."""
    rows = comparison.asked(name)
    rows = rows[rows["metric"] == metric]
    for one, other, sign in ((first, second, 1), (second, first, -1)):
        found = rows[(rows["first"] == one) & (rows["second"] == other)]
        if len(found):
            row = {str(column): value for column, value in found.iloc[0].items()}
            return row if sign == 1 else turn_round(row)
    return None


def turn_round(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the row of second − first from that of first − second.

    Args:
        row: Of a corrected table of differences.

    Returns:
        The row, with arms and ends of intervals exchanged and signs turned.
    """
    turned = dict(row) | {"difference": -row["difference"]}
    for kind in ("", "holm_", "bootstrap_"):
        turned |= {f"{kind}low": -row[f"{kind}high"], f"{kind}high": -row[f"{kind}low"]}
    turned |= {"first": row["second"], "second": row["first"]}
    return turned | {"first_seeds": row["second_seeds"], "second_seeds": row["first_seeds"]}


def describe_difference(row: Mapping[str, Any]) -> str:
    """Describe a corrected difference: above, below, or not told apart.

    Args:
        row: Of a corrected table of differences.

    Returns:
        One sentence, and a second one where the interval does not cover everything.
    """
    metric, first, second = str(row["metric"]), row["first"], row["second"]
    name, unit = wording.name_of(metric), wording.unit_of(metric)
    bounds = wording.interval(metric, row["holm_low"], row["holm_high"], signed=True)
    size = f"{wording.difference(metric, row['difference'])} {unit}".strip()
    if not bounds:
        return f"nothing can be said of {first} and {second} by {name} ({size}): the data give no interval."
    evidence = (
        f"corrected interval {bounds}, {_describe_p(row['p_holm'])} over "
        f"{_count(row['comparisons'], 'comparison')}; {row['first_seeds']} and "
        f"{_count(row['second_seeds'], 'seed')}, {_count(row['clusters'], 'prompt')}"
    )
    if row["p_holm"] < wording.ALPHA:
        side = "above" if row["difference"] > 0 else "below"
        text = f"{first} is {side} {second} by {size.lstrip('+-')} in {name} ({evidence})."
    else:
        text = f"{first} and {second} cannot be told apart by {name}: {size} ({evidence})."
    return text if row["covers"] in COMPLETE else f"{text} The interval covers {row['covers']}."


def _describe_p(p_value: float) -> str:
    return "corrected p < 0.001" if p_value < 0.001 else f"corrected p = {p_value:.3f}"


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
