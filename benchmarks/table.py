"""Run benchmarks and put their tables into README.md: `python benchmarks/table.py [NAME …] [--rounds N]`."""

import argparse
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
README = FOLDER / "README.md"
ALL = ("impact", "step", "kl", "memory", "judge", "growth")


def section(name: str, output: str, options: Sequence[str]) -> str:
    """Format a benchmark's section, with its markers."""
    command = f"```console\n{' '.join(['python', f'benchmarks/{name}.py', *options])}\n```"
    return f"<!-- begin {name} -->\n{command}\n\n{output.strip()}\n<!-- end {name} -->"


def put(text: str, name: str, output: str, options: Sequence[str] = ()) -> str:
    """Return the README with one section replaced.

    Raises:
        ValueError: It has no section of that name.
    """
    pattern = rf"<!-- begin {name} -->.*?<!-- end {name} -->"
    new, count = re.subn(pattern, lambda _: section(name, output, options), text, flags=re.DOTALL)
    if count != 1:
        raise ValueError(f"{README.name} has {count} sections {name!r}, expected one, between its markers.")
    return new


def main() -> int:
    """Run the benchmarks and replace their sections, also of one whose results differ, which fails.

    Returns:
        The exit status: not 0 where a benchmark failed.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="none: all but gpu")
    parser.add_argument("--rounds", type=int, help="alternating rounds; else as many as each has by itself")
    arguments = parser.parse_args()
    options = [] if arguments.rounds is None else ["--rounds", str(arguments.rounds)]
    status = 0
    for name in arguments.names or ALL:
        command = [sys.executable, FOLDER / f"{name}.py", *options]
        run = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        if "| ratio |" not in run.stdout:
            return run.returncode or 1
        status = max(status, run.returncode)
        new = put(README.read_text(encoding="utf-8"), name, run.stdout, options)
        README.write_text(new, encoding="utf-8")
    return status


if __name__ == "__main__":
    sys.exit(main())
