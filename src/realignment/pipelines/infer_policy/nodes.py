"""Nodes of the pipeline `infer_policy`."""

import logging
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from realignment import infer_policy as core
from realignment.parameters import PrinciplesParameters
from realignment.policy import Policy, diff_policies
from realignment.records import digest_table

logger = logging.getLogger(__name__)


def explain_choices(
    choice_pairs: pd.DataFrame, parameters: PrinciplesParameters, seed: int
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Infer principles that explain which response was chosen, the strongest first."""
    inference = core.infer_principles(choice_pairs, parameters, seed=seed)
    report = inference.report
    logger.info("%d principles of %d explain %d choices", report["kept"], report["selected"], report["n"])
    for row in inference.principles.to_dict("records"):
        logger.info("%(principle)s Has a say in %(support).0f%%", row | {"support": 100 * row["support"]})
    return inference.principles, report


def write_inferred_policy(
    principles: pd.DataFrame, choice_pairs: pd.DataFrame, parameters: PrinciplesParameters
) -> str:
    """Write the principles as a policy document, each with its evidence."""
    version = digest_table(choice_pairs)[:12]
    return core.write_document(principles, choice_pairs, min_kept=parameters.min_kept, version=version)


def compare_inferred_policy(inferred_policy: str, policy: Policy) -> pd.DataFrame:
    """Tabulate what changes from the inferred policy to the new one, rule by rule."""
    return diff_policies(core.read_document(inferred_policy), policy)


def draw_principles(principles: pd.DataFrame) -> go.Figure:
    """Draw every principle's agreement with its interval, and the share of pairs that it applies to."""
    from realignment import reports

    return reports.draw_principles(principles)
