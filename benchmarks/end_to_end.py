"""Time and memory of the main job by stage: `python benchmarks/end_to_end.py [--json FILE] [-- KEDRO ARGS]`.

Runs `kedro run --pipelines realign` with a temporary data folder, where packages and base model are present,
and prints what the run itself measured. Wall-clock seconds depend on the machine; compare ratios of runs side
by side.
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def run(arguments: list[str], data_root: Path) -> dict:
    """Run the pipeline and return its summary, with the seconds of the whole command."""
    command = [sys.executable, "-m", "kedro", "run", "--pipelines", "realign"]
    start = time.perf_counter()
    subprocess.run([*command, "--params", f"data_root={data_root}", *arguments], cwd=ROOT, check=True)
    summary = json.loads((data_root / "08_reporting" / "summary.json").read_text(encoding="utf-8"))
    return summary | {"command_seconds": time.perf_counter() - start}


def table(summary: dict) -> str:
    """Format the seconds per stage as a Markdown table."""
    rows = [f"| {stage} | {seconds:.1f} |" for stage, seconds in summary["seconds"].items()]
    rows += [
        f"| **whole command** | **{summary['command_seconds']:.1f}** |",
        f"| peak memory, MiB | {summary['peak_memory_mib']:.0f} |",
    ]
    return "\n".join(["| stage | seconds |", "|---|---|", *rows])


def main() -> None:
    """Parse the arguments, run the pipeline, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write {stage: seconds, …} to this file")
    parser.add_argument("arguments", nargs="*", help="passed on to kedro run")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        summary = run(options.arguments, Path(folder))
    print(f"{platform.machine()}, Python {platform.python_version()}\n")
    print(table(summary))
    if options.json is not None:
        options.json.write_text(json.dumps(summary, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
