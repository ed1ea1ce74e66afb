"""Run benchmarks and put their tables into README.md: `python benchmarks/table.py [NAME …]`, default: all."""

import re
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
README = FOLDER / "README.md"


def section(name: str, output: str) -> str:
    """What stands between a benchmark's markers."""
    command = f"```console\npython benchmarks/{name}.py\n```"
    return f"<!-- begin {name} -->\n{command}\n\n{output.strip()}\n<!-- end {name} -->"


def put(text: str, name: str, output: str) -> str:
    """The README with one section replaced.

    Raises:
        ValueError: It has no section of that name.
    """
    pattern = rf"<!-- begin {name} -->.*?<!-- end {name} -->"
    new, count = re.subn(pattern, lambda _: section(name, output), text, flags=re.DOTALL)
    if count != 1:
        raise ValueError(f"{README.name} has {count} sections {name!r}, expected one, between its markers.")
    return new


def main() -> int:
    """Run each, replace each section; a benchmark whose results differ is reported and its table is kept."""
    names = sys.argv[1:] or ["impact", "step", "kl", "memory", "judge", "growth"]
    status = 0
    for name in names:
        run = subprocess.run([sys.executable, FOLDER / f"{name}.py"], stdout=subprocess.PIPE, text=True)
        if "| ratio |" not in run.stdout:
            return run.returncode or 1
        status = max(status, run.returncode)
        README.write_text(put(README.read_text(encoding="utf-8"), name, run.stdout), encoding="utf-8")
    return status


if __name__ == "__main__":
    sys.exit(main())
