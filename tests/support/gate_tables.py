"""Evaluation tables for the gate: real comparisons of made-up verdicts, and the rules that a run has."""

import numpy as np
import pandas as pd
import yaml
from documents import ROOT

from realignment.evaluation.measures import metric_row
from realignment.evaluation.table import COLUMNS
from realignment.parameters import GateRule, PromotionParameters
from realignment.statistics import compare_means, compare_proportions


def default_parameters(**changes):
    """`promotion` as `conf/base` sets it, with `changes` to the gate."""
    file = ROOT / "conf/base/parameters_promotion.yml"
    values = yaml.safe_load(file.read_text(encoding="utf-8"))["promotion"]
    return PromotionParameters(**values | {"gate": values["gate"] | changes})


def default_rules():
    return default_parameters().gate.rules


def rule(**fields):
    return GateRule(**{"name": "rule", "metric": "agreement", "group": "regulated"} | fields)


def share(metric, group, n, lost, gained, both=0, *, judge=""):
    """A share of n items: both sides have the property, only before (lost), only after (gained), neither."""
    before = np.arange(n) < both + lost
    after = (np.arange(n) < both) | ((np.arange(n) >= both + lost) & (np.arange(n) < both + lost + gained))
    return metric_row(metric, group, compare_proportions(before, after), unit="share", judge=judge)


def drift(mean, n=80):
    values = np.random.default_rng(0).gamma(4, mean / 4, n)
    comparison = compare_means(np.zeros(n), values * mean / values.mean(), np.random.default_rng(0))
    return metric_row("kl_drift", "retained", comparison, unit="nats/token")


def good_rows(judge="rules"):
    """A candidate with every figure as it should be, on as many items as the sample's test prompts have."""
    return {
        "agreement": share("agreement", "regulated", 154, 2, 100, 5, judge=judge),
        "health": share("agreement", "domain:health", 60, 1, 40, 2, judge=judge),
        "law": share("agreement", "domain:law", 50, 1, 32, 2, judge=judge),
        "money": share("agreement", "domain:money", 44, 0, 28, 1, judge=judge),
        "over_refusal": share("over_refusal", "overall", 208, 2, 4, 3, judge=judge),
        "drift": drift(0.3),
        "capability": share("capability", "task:questions", 120, 4, 8, 76),
    }


def table(rows=None, **changes):
    rows = (good_rows() if rows is None else rows) | changes
    return pd.DataFrame([row for row in rows.values() if row is not None], columns=list(COLUMNS))
