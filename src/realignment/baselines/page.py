"""Write the page of a comparison in Markdown: generated text between two markers of a page."""

import re
from collections.abc import Iterable, Sequence

from realignment.baselines import wording
from realignment.baselines.answers import answer_questions
from realignment.baselines.blocks import PARTIAL, Block, Entry, make_blocks
from realignment.baselines.comparison import Comparison
from realignment.baselines.figure_data import Image
from realignment.baselines.tables import DONE, FAILED
from realignment.records import DataError

BEGIN, END = "<!-- begin methods -->", "<!-- end methods -->"
"""What the page has around the generated text."""


def render_markdown(
    comparison: Comparison, *, images: Sequence[Image] = (), image_folder: str = "../images"
) -> str:
    """Render all sets as Markdown, headings from level 2 on.

    Args:
        comparison: The figures.
        images: From `images.write_images`.
        image_folder: Where they are, relative to the page.

    Returns:
        The text, without the markers.
    """
    parts = [describe_cells(comparison), describe_reading(comparison)]
    for name in comparison.sets:
        parts.append(f"## {_text(name)}")
        if not comparison.arms(name):
            parts.append("No cell of this set is finished.")
            continue
        parts.append("\n".join(_answers(comparison, name)))
        blocks = make_blocks(comparison, name)
        for place, block in enumerate(blocks):
            parts.append(_block(block))
            if place == 0:
                parts += [
                    f"![{_text(image.caption)}]({image_folder}/{image.file})"
                    for image in images
                    if image.set == name
                ]
    return "\n\n".join(parts)


def replace_section(page: str, generated: str) -> str:
    """Put generated text between the markers of a page.

    Args:
        page: The page.
        generated: From `render_markdown`.

    Returns:
        The page; what stands around the markers stays.

    Raises:
        DataError: The page does not have the two markers once, in this order.
    """
    pattern = f"{re.escape(BEGIN)}.*?{re.escape(END)}"
    if page.count(BEGIN) != 1 or page.count(END) != 1 or not re.search(pattern, page, re.DOTALL):
        raise DataError(
            f"The page has {page.count(BEGIN)} × `{BEGIN}` and {page.count(END)} × `{END}`; expected each "
            "once, in this order. Put them where the tables belong."
        )
    return re.sub(pattern, lambda _: f"{BEGIN}\n{generated}\n{END}", page, flags=re.DOTALL)


def describe_cells(comparison: Comparison) -> str:
    """Say how many cells are finished, failed and missing."""
    statuses = comparison.cells["status"]
    done, failed, missing = (
        int((statuses == DONE).sum()),
        int((statuses == FAILED).sum()),
        len(comparison.missing),
    )
    total = done + failed + missing
    rest = [f"{n} {what}" for n, what in ((failed, "failed"), (missing, "are missing")) if n]
    state = f"{done} of {total} cells (method × seed × set) are finished"
    return f"{state}, {' and '.join(rest)}." if rest else f"{state}."


def describe_reading(comparison: Comparison) -> str:
    """Say what the intervals are, and what all methods are compared with."""
    comparator = _text(comparison.choices.comparator)
    return (
        f"All methods are compared with **{comparator}**. Intervals are of 95 %, from a t distribution "
        "whose standard error knows of seeds and prompts together (two-way, with Satterthwaite's degrees "
        f"of freedom); where a method has one seed they cover prompts alone ({PARTIAL}). “Corrected” is "
        "by Holm over the comparisons that a table makes by one metric: a corrected interval excludes 0 "
        f"exactly where the corrected p is below {wording.ALPHA:g}. An item that any of the compared "
        "cells could not score is left out for all of them."
    )


def _answers(comparison: Comparison, name: str) -> list[str]:
    return [
        f"- **{_text(question)}** {_text(answer)}" if question else f"- {_text(answer)}"
        for question, answer in answer_questions(comparison, name)
    ]


def _block(block: Block) -> str:
    lines = [
        f"### {_text(block.title)}",
        "",
        _line(map(_text, block.columns)),
        "|---" * len(block.columns) + "|",
        *(_line(map(_entry, row)) for row in block.rows),
    ]
    return "\n".join([*lines, "", _text(block.note)] if block.note else lines)


def _line(texts: Iterable[str]) -> str:
    return f"| {' | '.join(texts)} |"


def _entry(entry: Entry) -> str:
    text = _text(entry.text)
    text = f"**{text}**" if entry.strong and text else text
    return (
        f"{text} ({_text(entry.interval)})"
        if entry.interval.strip(f" {PARTIAL}")
        else f"{text}{entry.interval}"
    )


def _text(text: str) -> str:
    """Text of data as Markdown that neither ends a cell of a table nor is markup."""
    plain = " ".join(str(text).split())
    # An underscore within a word is none of markup; `<` cannot be escaped with a backslash everywhere.
    escaped = re.sub(r"([\\`*|\[\]]|(?<!\w)_|_(?!\w))", r"\\\1", plain)
    return escaped.replace("<", "&lt;")
