"""Render one self-contained HTML page per run: everything is inline, and model text is never markup."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jinja2
import pandas as pd
import plotly.graph_objects as go
import yaml
from plotly.io.json import to_json_plotly
from plotly.offline import get_plotlyjs

from realignment.reports import formats, sections
from realignment.reports.attacks import draw_attacks
from realignment.reports.plain import describe_result
from realignment.reports.style import DARK, DISPOSITION_COLOURS, FONT, LIGHT, TITLE_HEIGHT
from realignment.reports.win_rates import win_rate_section


@dataclass(frozen=True, kw_only=True)
class RunResults:
    """The results of a run, as the catalog has them. A field that is None or empty leaves its section out.

    `missing` says why, by the name of the field, in place of the page's own sentence. In `responses` the
    verdict `after_<judge>` is true where an answer complies; a violation is an over-refusal for prompts of
    the kinds `ordinary` and `look_alike`, on which the policy asks for a direct answer.
    `audit_report` is shown if it is an audit of the splits that `triage_manifest` names.
    """

    title: str
    subtitle: str = ""
    summary: Mapping[str, Any] = field(default_factory=dict)
    gate_report: Mapping[str, Any] | None = None
    registered_model: Mapping[str, Any] | None = None
    policy_diff: pd.DataFrame | None = None
    triage_report: Mapping[str, Any] | None = None
    triage_flow: go.Figure | None = None
    rejected_rows: pd.DataFrame | None = None
    oracle_report: Mapping[str, Any] | None = None
    audit_report: Mapping[str, Any] | None = None
    triage_manifest: Mapping[str, Any] | None = None
    corrections_report: Mapping[str, Any] | None = None
    correction_leakage: pd.DataFrame | None = None
    correction_leakage_figure: go.Figure | None = None
    impact_report: Mapping[str, Any] | None = None
    impact_figure: go.Figure | None = None
    training_figure: go.Figure | None = None
    evaluation_table: pd.DataFrame | None = None
    evaluation_figure: go.Figure | None = None
    evaluation_judge: Mapping[str, Any] | None = None
    win_rates: Mapping[str, Any] | None = None
    responses: pd.DataFrame | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    manifests: Sequence[Mapping[str, Any]] = ()
    missing: Mapping[str, str] = field(default_factory=dict)


def render_report(results: RunResults) -> str:
    """Render the page as one string of HTML that makes no request; plotly.js is in it once.

    Figures follow the reader's light or dark scheme. All text is escaped; characters that UTF-8 cannot hold
    (lone surrogates in model text) are replaced.

    Args:
        results: What the page shows.

    Returns:
        The page.
    """
    counts = (results.triage_report or {}).get("counts") or results.summary.get("splits") or {}
    template = make_environment("realignment.reports").get_template("report.html.j2")
    page = template.render(
        run=results,
        colours={str(d): colour for d, colour in DISPOSITION_COLOURS.items()},
        splits=sections.split_counts(counts),
        diff=sections.records(results.policy_diff),
        refused=sections.count_rejection_reasons(results.rejected_rows),
        audit=sections.audit_section(results.audit_report, results.triage_manifest),
        writers=sections.writer_lines(results.corrections_report),
        leakage=sections.leakage_lines(results.correction_leakage),
        metrics=sections.metric_blocks(results.evaluation_table),
        sentences=_describe(results),
        attacks=_draw_attacks(results.evaluation_table),
        win_rates=win_rate_section(results.win_rates),
        judges=sections.judge_lines(results.evaluation_judge or {}),
        judge_note=(results.evaluation_judge or {}).get("note"),
        answers=sections.answer_lines(results.responses),
        parameters=yaml.safe_dump(sections.to_plain(results.parameters), sort_keys=False, allow_unicode=True),
    )
    return page.encode("utf-8", errors="replace").decode("utf-8")


def make_environment(package: str) -> jinja2.Environment:
    """Make what renders templates of a package; they share styles, scripts and charts with this package's.

    Args:
        package: The package whose folder has the templates.

    Returns:
        The environment. It escapes all text; a name that is not there is an error.
    """
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader([
            jinja2.PackageLoader(package, "."),
            jinja2.PackageLoader("realignment.reports", "."),
        ]),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    environment.filters |= {"number": formats.number, "share": formats.share, "name": formats.name_of}
    environment.globals |= {
        "formats": formats,
        "font": FONT,
        "themes": {"light": LIGHT.to_plotly_json(), "dark": DARK.to_plotly_json()},
        "plotly_js": get_plotlyjs(),
        "figure_json": _figure_json,
    }
    return environment


def _describe(results: RunResults) -> list[str]:
    if results.evaluation_table is None:
        return []
    return describe_result(results.evaluation_table, (results.evaluation_judge or {}).get("headline", {}))


def _draw_attacks(table: pd.DataFrame | None) -> go.Figure | None:
    if table is None or "metric" not in table or not (table["metric"] == "attack_success").any():
        return None
    return draw_attacks(table)


def _figure_json(figure: go.Figure) -> str:
    """Serialise a figure without what the page brings itself (title, template), for a script element."""
    content = figure.to_plotly_json()
    layout = content["layout"]
    for name in ("template", "title"):
        layout.pop(name, None)
    # The page has a heading instead of the title, so its room above the plot goes too.
    layout["margin"]["t"] -= TITLE_HEIGHT
    layout["height"] -= TITLE_HEIGHT
    # "<" would let model text close the script element.
    return str(to_json_plotly(content)).replace("<", "\\u003c")
