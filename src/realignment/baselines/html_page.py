"""Render the page of a comparison as one HTML file that makes no request, in the style of a run's report."""

from collections.abc import Callable

import plotly.graph_objects as go

from realignment.baselines.answers import answer_questions
from realignment.baselines.blocks import make_blocks
from realignment.baselines.comparison import Comparison
from realignment.baselines.figures import draw_differences, draw_logratios, draw_tradeoffs
from realignment.baselines.page import describe_cells, describe_reading
from realignment.reports import make_environment

FIGURES: dict[str, tuple[Callable[[Comparison, str], go.Figure], str]] = {
    "tradeoffs": (
        draw_tradeoffs,
        "Filled and blue: on the Pareto front of the means, where no method is better in one respect and at "
        "least as good in the other. Lines are 95 % intervals.",
    ),
    "differences": (
        draw_differences,
        "Row − column. Bold with a star: told apart after Holm's correction over all pairs of this figure, "
        "which are more comparisons than in the tables.",
    ),
    "logratios": (
        draw_logratios,
        "Violating answers should become less likely, not only less likely than good ones. Lines are 95 % "
        "intervals.",
    ),
}
"""Kind of figure → how it is drawn, and what to see in it."""


def render_html(comparison: Comparison, *, title: str = "Methods compared") -> str:
    """Render the page.

    Args:
        comparison: The figures.
        title: Of the page.

    Returns:
        One string; all text of the data is escaped.
    """
    sections = [
        {
            "name": name,
            "answers": answer_questions(comparison, name),
            "blocks": make_blocks(comparison, name),
            "figures": [(kind, draw(comparison, name), text) for kind, (draw, text) in FIGURES.items()],
        }
        for name in comparison.sets
        if comparison.arms(name)
    ]
    unfinished = [name for name in comparison.sets if not comparison.arms(name)]
    template = make_environment("realignment.baselines").get_template("methods.html.j2")
    page = template.render(
        title=title, cells=describe_cells(comparison), reading=describe_reading(comparison).replace("**", ""),
        sections=sections, unfinished=unfinished,
    )  # fmt: skip
    return page.encode("utf-8", errors="replace").decode("utf-8")
