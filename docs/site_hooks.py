"""Hooks of MkDocs (see `mkdocs.yml`): API pages from docstrings, and links to files that are not pages."""

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
DOCS, PACKAGE = ROOT / "docs", ROOT / "src/realignment"
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)\s:]+)\)")


def on_files(files: Any, config: Any) -> Any:
    """Add a page to `api/` for each package and module at the top of the source, and one that lists them."""
    packages = [path.parent.name for path in PACKAGE.glob("*/__init__.py")]
    names = sorted([*packages, *(path.stem for path in PACKAGE.glob("[!_]*.py"))])
    index = "".join(f"- [`{name}`]({name}.md)\n" for name in names)
    pages = {name: f"# {name}\n\n::: realignment.{name}\n" for name in names}
    for name, text in ({"index": f"# Packages and modules\n\n{index}"} | pages).items():
        files.append(File.generated(config, f"api/{name}.md", content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Write links to files of the repository that are not on the site as their paths."""
    folder = (DOCS / page.file.src_uri).parent

    def replace(match: re.Match[str]) -> str:
        text, target = match.groups()
        path = (folder / target.partition("#")[0]).resolve()
        on_the_site = path.is_relative_to(DOCS) and path.suffix != ".py"
        if on_the_site or not path.exists():  # a link to nothing stays: `--strict` reports it
            return match[0]
        name = str(path.relative_to(ROOT))
        return f"`{name}`" if text.strip("`") == name else f"{text} (`{name}`)"

    return LINK.sub(replace, markdown)
