"""What moves the sample's check of ability: `benchmarks/capability_check.py base=FOLDER trained=FOLDER`.

Each model answers the questions in several formats (plain or chat template, choices or letters, with and
without solved examples), and each format is scored by the summed log-probability of a choice (`acc`), by
that per character (`acc_norm`), and by what the question adds to it (`acc_mutual_info`). A model that
learned a format gains where the format was strange to it; one that learned something gains everywhere.
`--file NAME=PATH` asks the same of other questions; `--limit N` asks fewer. `--keep FOLDER` keeps the scores
of each model and format, so that a command that was killed goes on where it was. `--write` puts the tables
into docs/results/capability-check.md. About 5 minutes a model on one core.
"""

import argparse
import platform
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from realignment.evaluation.capability import harness_samples, question_scores
from realignment.evaluation.capability_tasks import local_task
from realignment.intake.readers import read_table
from realignment.model.loading import load_configured_model
from realignment.parameters import CapabilityFile
from realignment.parameters.base import ModelParameters
from realignment.statistics import compare_proportions, wilson_interval

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "data/01_raw/sample/capability.jsonl"
PAGE = ROOT / "docs/results/capability-check.md"
MARK = "<!-- figures -->"
MODEL = ModelParameters(source="unused", folder="unused", dtype="float32", device="cpu")
FORMATS: dict[str, dict[str, Any]] = {
    "plain": {},
    "plain, 2 examples": {"shots": 2},
    "chat": {"chat_template": True},
    "letters": {"form": "letters"},
}
EXAMPLES = 2
"""The questions that serve as examples are left out of every format, so that all have the same n."""


def describe_questions(path: Path) -> Iterator[str]:
    """Say what a model could exploit without knowing anything: lengths and positions of the right choices."""
    table = read_table(str(path))
    longest = shortest = 0
    for choices, answer in zip(table["choices"], table["answer"], strict=True):
        lengths = [len(choice) for choice in choices]
        longest += lengths[answer] == max(lengths) and lengths.count(max(lengths)) == 1
        shortest += lengths[answer] == min(lengths) and lengths.count(min(lengths)) == 1
    positions = Counter(table["answer"])
    counts = ", ".join(str(positions[position]) for position in sorted(positions))
    yield f"{len(table)} questions; the right choice stands at each position {counts} times,"
    yield f"is alone the longest in {longest} and alone the shortest in {shortest}."


def measure(model: Any, tokenizer: Any, file: CapabilityFile, limit: int | None) -> pd.DataFrame:
    """Ask the questions in one format; one row per question, with a column per scoring and `longest`."""
    task = local_task("check", file)
    is_answer = file.form is None and not file.shots and not file.chat_template
    if is_answer:
        task["metric_list"].append(
            {"metric": "acc_mutual_info", "aggregation": "mean", "higher_is_better": True}
        )
    samples = harness_samples(
        model, tokenizer, task, chat_template=file.chat_template, batch_size=16, limit=limit
    )["check"]
    scorings = ("acc", "acc_norm", "acc_mutual_info") if is_answer else ("acc", "acc_norm")
    table = pd.DataFrame({name: question_scores("check", samples, name)[0] for name in scorings})
    ordered = sorted(samples, key=lambda sample: sample["doc_id"])
    table["longest"] = [_picks_longest(sample) for sample in ordered]
    return table if file.shots else table.iloc[EXAMPLES:].reset_index(drop=True)


def _picks_longest(sample: dict[str, Any]) -> bool:
    """Whether the choice with the largest summed log-probability is one of the longest."""
    lengths = [len(option) for option in sample["doc"]["options"]]
    sums = [float(response[0]) for response in sample["filtered_resps"][: len(lengths)]]
    return lengths[int(np.argmax(sums))] == max(lengths)


def figures(models: dict[str, str], files: dict[str, Path], limit: int | None, keep: Path) -> pd.DataFrame:
    """Measure every model in every format on every file; one row per file, format and scoring."""
    scores: dict[tuple[str, str], dict[str, pd.DataFrame]] = {}
    keep.mkdir(parents=True, exist_ok=True)
    for side, folder in models.items():
        model, tokenizer = load_configured_model(folder, MODEL)
        for name, path in files.items():
            for label, settings in FORMATS.items():
                kept = keep / f"{side}-{name}-{label.replace(', ', '-').replace(' ', '-')}-{limit}.csv"
                if not kept.exists():
                    file = CapabilityFile(path=str(path), **settings)
                    asked = limit and (limit if file.shots else limit + EXAMPLES)
                    measure(model, tokenizer, file, asked).to_csv(kept, index=False)
                scores.setdefault((name, label), {})[side] = pd.read_csv(kept)
    return pd.DataFrame(_rows(scores))


def _rows(scores: dict[tuple[str, str], dict[str, pd.DataFrame]]) -> Iterator[dict[str, Any]]:
    for (name, label), sides in scores.items():
        tables = list(sides.values())
        for scoring in [column for column in tables[0] if column != "longest"]:
            if label.startswith("letters") and scoring != "acc":
                continue  # letters are equally long: both scorings are the same
            row = {"questions": name, "format": label, "scoring": scoring, "n": len(tables[0])}
            for side, table in sides.items():
                low, high = wilson_interval(int(table[scoring].sum()), len(table))
                row[side] = f"{table[scoring].mean():.1%} ({low:.1%} to {high:.1%})"
            if len(tables) > 1:
                found = compare_proportions(tables[0][scoring] > 0, tables[-1][scoring] > 0)
                low, high = 100 * found.difference_low, 100 * found.difference_high
                row["change"] = f"{100 * found.difference:+.1f} ({low:+.1f} to {high:+.1f})"
            picks = [f"{table['longest'].mean():.0%}" for table in tables]
            row["picks a longest choice"] = (
                " → ".join(picks) if scoring == "acc" and label != "letters" else ""
            )
            yield row


def _named(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    return name, value


def main() -> None:
    """Measure, and print the tables or write them into the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="+", type=_named, help="NAME=FOLDER; the first is the base")
    parser.add_argument("--file", action="append", type=_named, default=[], help="NAME=PATH of questions")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--keep", type=Path, help="folder for the scores of each model and format")
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    files = {name: Path(path) for name, path in arguments.file} or {"sample": SAMPLE}
    lines = [f"{name}: {' '.join(describe_questions(path))}" for name, path in files.items()]
    with tempfile.TemporaryDirectory() as folder:
        table = figures(dict(arguments.models), files, arguments.limit, arguments.keep or Path(folder))
    header = [f"| {' | '.join(table.columns)} |", "|" + "---|" * len(table.columns)]
    body = [f"| {' | '.join(map(str, row))} |" for row in table.itertuples(index=False)]
    machine = f"{platform.machine()}, one thread; Python {platform.python_version()}."
    text = "\n".join([*lines, "", *header, *body, "", machine])
    if arguments.write:
        head, _, _ = PAGE.read_text(encoding="utf-8").partition(MARK)
        PAGE.write_text(f"{head}{MARK}\n\n{text}\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
