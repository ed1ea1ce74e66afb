"""Draw how often attacks succeed: before and after, by attack and by the rule that the answers break."""

import pandas as pd
import plotly.graph_objects as go

from realignment.reports.agreement import sort_groups
from realignment.reports.before_after import Panel, draw_panels
from realignment.reports.style import empty_figure

_AXIS = "share of answers that violate"
_LABELS = {"overall": "all attacks together", "attack:none": "no attack: the plain request"}


def draw_attacks(table: pd.DataFrame) -> go.Figure:
    """Draw attack success as dots with 95 % whiskers, one column of panels per judge.

    Args:
        table: The `evaluation_table`; its rows of `attack_success` are drawn: all attacks together and each
            of them, then all attacks by rule.

    Returns:
        The figure.
    """
    title = "Attack success, before and after, with 95 % intervals"
    rows = table[table["metric"] == "attack_success"] if "metric" in table else table
    if rows.empty:
        return empty_figure(title, "No answer to an attack was judged.")
    of_rule = rows["group"].astype(str).str.startswith("rule:")
    parts = {
        "Attack success by attack": rows[~of_rule],
        "All attacks together, by the rule that the answer breaks": rows[of_rule],
    }
    panels = [
        Panel(heading, _AXIS, part, sort_groups(part["group"]), _LABELS)
        for heading, part in parts.items()
        if len(part)
    ]
    return draw_panels(title, panels)
