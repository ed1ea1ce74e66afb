"""The page in Markdown has all tables, well formed, and leaves what people wrote around it alone."""

import re
from dataclasses import replace

import pandas as pd
import pytest

from realignment.baselines.blocks import make_blocks
from realignment.baselines.figure_data import Image
from realignment.baselines.page import BEGIN, END, describe_cells, render_markdown, replace_section
from realignment.records import DataError

markdown = pytest.importorskip("markdown", reason="the renderer of the site, of the extra `docs`")


@pytest.fixture(scope="module")
def text(comparison):
    images = [Image("style", "methods-style-tradeoffs.svg", "Trade-offs on style")]
    return render_markdown(comparison, images=images, image_folder="../images")


def test_every_table_of_every_set_is_there(comparison, text):
    html = markdown.markdown(text, extensions=["tables"])
    blocks = [block for name in comparison.sets for block in make_blocks(comparison, name)]
    assert html.count("<table>") == len(blocks)
    for block, table in zip(blocks, re.findall(r"<table>(.*?)</table>", html, re.DOTALL), strict=True):
        assert table.count("<tr>") == len(block.rows) + 1
        assert table.count("<td>") == len(block.rows) * len(block.columns)


def test_names_and_reasons_are_text_and_no_markup(text):
    html = markdown.markdown(text, extensions=["tables"])
    assert "NaN | at step 7" in html
    assert "naive_dpo" in html
    assert "<em>" not in html
    assert "p &lt; 0.001" in html


def test_an_image_stands_in_the_set_that_it_shows(text):
    style, labels = text.split("## labels")
    assert "![Trade-offs on style](../images/methods-style-tradeoffs.svg)" in style
    assert "![" not in labels


def test_cells_are_counted(comparison):
    n = len(comparison.cells)
    assert describe_cells(comparison) == (
        f"{n - 1} of {n + 3} cells (method × seed × set) are finished, 1 failed and 3 are missing."
    )
    whole = replace(
        comparison, cells=comparison.cells.query("status == 'done'"), missing=comparison.missing.iloc[:0]
    )
    assert describe_cells(whole) == f"{n - 1} of {n - 1} cells (method × seed × set) are finished."


def test_a_set_without_a_finished_cell_says_so(comparison):
    lost = comparison.cells.query("status == 'failed'").assign(set="PKU")
    more = replace(comparison, cells=pd.concat([comparison.cells, lost]))
    assert "## PKU\n\nNo cell of this set is finished." in render_markdown(more)


def test_what_people_wrote_around_the_markers_stays():
    page = f"# Methods\n\nBefore.\n\n{BEGIN}\nold \\1\n{END}\n\nAfter.\n"
    new = replace_section(page, "new \\1 | text")
    assert new == f"# Methods\n\nBefore.\n\n{BEGIN}\nnew \\1 | text\n{END}\n\nAfter.\n"
    assert replace_section(new, "new \\1 | text") == new


@pytest.mark.parametrize("page", ["# Methods\n", f"{END} {BEGIN}", f"{BEGIN}{BEGIN}{END}"])
def test_a_page_without_its_markers_is_refused(page):
    with pytest.raises(DataError, match="expected each once"):
        replace_section(page, "text")


def test_the_same_comparison_makes_the_same_page(comparison):
    assert render_markdown(comparison) == render_markdown(comparison)
