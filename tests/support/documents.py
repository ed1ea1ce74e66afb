"""The pages of the documentation, taken apart: fenced blocks, tables, links, names."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

_FENCE = re.compile(r'^```(\w*)(?: title="([^"]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    page: Path
    line: int
    language: str
    title: str | None
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path, *languages: str) -> list[Block]:
    """The fenced blocks of a page; those with a title are files."""
    text = read(page)
    found = [
        Block(page, text.count("\n", 0, match.start()) + 1, *match.groups())
        for match in _FENCE.finditer(text)
    ]
    return [block for block in found if not languages or block.language in languages]


def all_blocks(*languages: str) -> list[Block]:
    return [block for page in PAGES for block in blocks(page, *languages)]


def prose(page: Path) -> str:
    return _FENCE.sub("", read(page))


def links(page: Path) -> list[str]:
    """Relative links and images."""
    targets = [one or other for one, other in _LINK.findall(prose(page))]
    return [target for target in targets if not re.match(r"[a-z]+:", target)]


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", _FENCE.sub("", read(page)), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands(page: Path, program: str) -> list[list[str]]:
    """The arguments of each command of a program on a page."""
    import shlex

    lines = [line for block in blocks(page, "console", "bash", "sh") for line in block.text.splitlines()]
    parts = [shlex.split(line, comments=True) for line in lines]
    return [words[1:] for words in parts if words and words[0] == program]


def section(page: Path, heading: str) -> str:
    """From a heading to the next one of any level."""
    parts = re.split(r"^#+ (.+)$\n", read(page), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))[heading]


def table(text: str, number: int = 0) -> list[list[str]]:
    """The rows of a Markdown table, without its head."""
    found = re.findall(r"(?:^\|.*\|$\n?)+", text, re.MULTILINE)[number]
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in found.strip().splitlines()[2:]]
    return [[cell.strip().strip("`") for cell in row] for row in rows]


def first_column(text: str, number: int = 0) -> list[str]:
    return [name for row in table(text, number) for name in row[0].split(", ")]


def write_files(page: Path, folder: Path) -> None:
    """Every titled block of a page, as the file that its title names."""
    for block in blocks(page):
        if block.title is not None:
            file = folder / block.title
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block.text, encoding="utf-8")
