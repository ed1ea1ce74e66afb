"""The page in HTML is one file without requests, with all tables and figures, and data is never markup."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pandas as pd
import pytest

from realignment.baselines.blocks import make_blocks
from realignment.baselines.html_page import render_html


@pytest.fixture(scope="module")
def page(comparison):
    return render_html(comparison, title="Methods, compared")


class Links(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        self.found += [
            value for name, value in attrs if name in ("src", "href") and not value.startswith("#")
        ]


def test_the_page_makes_no_request(page):
    links = Links()
    links.feed(page)
    assert links.found == []


def test_every_table_and_figure_is_there(comparison, page):
    blocks = [block for name in comparison.sets for block in make_blocks(comparison, name)]
    assert page.count("<table>") == len(blocks)
    figures = re.findall(r"<script[^>]* data-plot=[^>]*>(.*?)</script>", page, re.DOTALL)
    assert len(figures) == 3 * len(comparison.sets)
    assert all(json.loads(figure)["data"] for figure in figures)
    assert "cells (method × seed × set) are finished" in page


def test_text_of_the_data_is_escaped(comparison):
    reason = comparison.cells["reason"].replace("NaN | at step 7", "<script>alert(1)</script>")
    page = render_html(replace(comparison, cells=comparison.cells.assign(reason=reason)))
    assert "<script>alert(1)" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_a_set_without_a_finished_cell_says_so(comparison):
    lost = comparison.cells.query("status == 'failed'").assign(set="PKU")
    page = render_html(replace(comparison, cells=pd.concat([comparison.cells, lost])))
    assert '<h2>PKU</h2><p class="absent">No cell of this set is finished.</p>' in page
