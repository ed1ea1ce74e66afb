"""Word figures and differences for readers: shares in percent and points, everything else with its unit."""

from realignment.baselines.comparison import Comparison
from realignment.reports import formats

_UNITS = {
    "logratio_preferred": "nats", "logratio_dispreferred": "nats", "logratio_retained": "nats",
    "kl_drift": "nats/token", "answer_tokens": "tokens", "bits_per_byte": "bits", "entropy": "nats/token",
}  # fmt: skip

_NAMES = {
    "logratio_preferred": "log-ratio of good answers",
    "logratio_dispreferred": "log-ratio of violating answers",
    "logratio_retained": "log-ratio of retained answers",
    "kl_drift": "drift (KL)",
    "answer_tokens": "answer length",
    "bits_per_byte": "bits per byte",
}

ALPHA = 0.05
"""Two methods are told apart where the corrected p is below."""


def kind_of(metric: str) -> str:
    """Return the metric without the task that it was measured on: `capability:facts` → `capability`."""
    return metric.partition(":")[0]


def is_share(metric: str) -> bool:
    """Tell whether the figures of a metric are shares of items."""
    return kind_of(metric) in formats.SHARES


def unit_of(metric: str) -> str:
    """Return the unit of a difference; ``""`` where it has none."""
    return "points" if is_share(metric) else _UNITS.get(kind_of(metric), "")


def name_of(metric: str) -> str:
    """Return what readers see for a metric."""
    kind, _, task = metric.partition(":")
    name = _NAMES.get(kind, formats.name_of(kind))
    return f"{name}: {task}" if task else name


def label_of(metric: str) -> str:
    """Return what stands at an axis or above a column: the name, and the unit where it is not percent."""
    unit = "" if is_share(metric) else unit_of(metric)
    return f"{name_of(metric)}, {unit}" if unit else name_of(metric)


def value(metric: str, number: float) -> str:
    """Format a value: a share in percent."""
    return formats.quantity(kind_of(metric), number)


def interval(metric: str, low: float, high: float, *, signed: bool = False) -> str:
    """Format an interval; ``""`` where the data cannot give one."""
    if formats.is_missing(low) or formats.is_missing(high):
        return ""
    return formats.interval(kind_of(metric), low, high, signed=signed)


def difference(metric: str, number: float) -> str:
    """Format a difference with its sign, of shares in points, without the unit."""
    text = formats.difference(kind_of(metric), number)
    return text.lstrip("+-") if not text.strip("+-0.") else text  # no "-0.0"


def count_seeds(comparison: Comparison, name: str, arm: str) -> str:
    """Say how many seeds of an arm are finished, and how many failed or are missing: `2 (1 failed)`."""
    cells = comparison.cells
    of_arm = cells[(cells["set"] == name) & (cells["arm"] == arm)]
    missing = comparison.missing
    done, failed = (int((of_arm["status"] == status).sum()) for status in ("done", "failed"))
    counts = {"failed": failed, "missing": int(((missing["set"] == name) & (missing["arm"] == arm)).sum())}
    rest = ", ".join(f"{n} {what}" for what, n in counts.items() if n)
    return f"{done} ({rest})" if rest else str(done)
