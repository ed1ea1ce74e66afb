"""The report of comparisons by group of prompts, and its headlines in the evaluation table."""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from realignment.evaluation.measures import metric_row
from realignment.evaluation.win_rates.comparators import Comparator
from realignment.evaluation.win_rates.comparing import COMPARISON_COLUMNS, compare_answers, list_positions
from realignment.evaluation.win_rates.matrix import report_group, report_positions
from realignment.oracles.rules import NoRulesError
from realignment.policy import Policy
from realignment.statistics import Comparison

logger = logging.getLogger(__name__)

HEADLINES = ("regulated", "overall")
"""Groups of prompts whose win rates are in the evaluation table."""


def measure_win_rates(
    answers: pd.DataFrame,
    models: Sequence[str],
    comparator: Comparator | None,
    policy: Policy,
    *,
    resamples: int,
    seed: int,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Compare the answers of models and report the win rates; an empty report where nobody can compare.

    Args:
        answers: As of `comparing.compare_answers`.
        models: Columns of the answers.
        comparator: The judge; None: nobody is to compare.
        policy: The policy to compare by.
        resamples: Bootstrap resamples of prompts.
        seed: Seed of the resamples.

    Returns:
        The comparisons, and the report of `report_win_rates`; with a `note` where there is none to make.
    """
    comparisons = pd.DataFrame(columns=list(COMPARISON_COLUMNS)).astype({"score": float})
    note = "Nobody is to compare the answers (`evaluation.win_rate.judge: null`)."
    if comparator is not None:
        try:
            comparisons = compare_answers(answers, models, comparator, policy)
            note = "" if len(comparisons) else "There are no answers to compare."
        except NoRulesError as error:
            note = str(error)
    symmetric = comparator is None or comparator.symmetric
    report = report_win_rates(
        comparisons,
        judge=None if comparator is None else comparator.name,
        positions=None if symmetric else list_positions(comparisons),
        resamples=resamples,
        seed=seed,
    )
    if note:
        logger.info("No win rates: %s", note)
    elif report["unscored"]:
        logger.warning("%d of %d comparisons have no verdict", report["unscored"], len(comparisons))
    return comparisons, report | ({"note": note} if note else {})


def report_win_rates(
    comparisons: pd.DataFrame,
    *,
    judge: str | None,
    positions: pd.DataFrame | None,
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    """Report win rates and Bradley–Terry strengths by group of prompts, and how far the judge can be trusted.

    Args:
        comparisons: From `compare_answers` or `tally_votes`.
        judge: Name of the judge; None: there is none.
        positions: From `comparing.list_positions` or `list_voted_positions`; None: the order cannot matter.
        resamples: Bootstrap resamples of prompts.
        seed: Seed of the resamples.

    Returns:
        judge, models, prompts, unscored with reasons, order_disagreements, position_bias, and groups with
        `win_rates` (model → opponent → figures) and `strengths` (model → figures); null where unknown.
    """
    models = list(dict.fromkeys([*comparisons["first_model"], *comparisons["second_model"]]))
    scored = comparisons[comparisons["score"].notna()]
    unscored = comparisons[comparisons["score"].isna()]
    both = scored.dropna(subset=["forward", "backward"])
    reasons = Counter(unscored["reason"]).most_common(5)
    disagreements = int((both["forward"] != both["backward"]).sum())
    groups = {name: report_group(part, models, resamples, seed) for name, part in _list_groups(scored)}
    return {
        "judge": judge,
        "models": models,
        "prompts": int(scored["prompt"].nunique()),
        "comparisons": len(scored),
        "unscored": len(unscored),
        "unscored_reasons": [{"reason": reason, "n": n} for reason, n in reasons],
        "order_disagreements": None if positions is None or both.empty else disagreements,
        "position_bias": None if positions is None else report_positions(positions, resamples, seed),
        "groups": groups,
    }


def _list_groups(comparisons: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """The headlines, and every other kind of prompt; groups without a comparison are left out."""
    if comparisons.empty:
        return
    yield "overall", comparisons
    for kind, part in comparisons.groupby("kind"):
        yield (str(kind) if kind in HEADLINES else f"kind:{kind}"), part


def win_rate_rows(report: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Return the headlines of a report as rows of the evaluation table: before is 1 − after.

    Args:
        report: From `report_win_rates`, of the models `before` and `after`.

    Yields:
        One row per headline group in which the two were compared.
    """
    for group in HEADLINES:
        figures = report.get("groups", {}).get(group, {}).get("win_rates", {}).get("after", {}).get("before")
        if figures is None:
            continue
        rate, low, high = figures["win_rate"], figures["low"], figures["high"]
        comparison = Comparison(
            figures["n"], 1 - rate, 1 - high, 1 - low, rate, low, high,
            2 * rate - 1, 2 * low - 1, 2 * high - 1, figures["p_value"], "sign, exact",
        )  # fmt: skip
        yield metric_row("win_rate", group, comparison, unit="share", judge=str(report["judge"]))
