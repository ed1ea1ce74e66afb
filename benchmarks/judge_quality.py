"""How right the evaluation's judges are on answers of models: `python benchmarks/judge_quality.py [--page]`.

The rules and the classifier of the evaluation judge the labelled answers of the embedded sample. The
classifier learns from these answers and is measured by cross-validation grouped by prompt, with the
evaluation's own folds and seed. An ordinary answer that violates only because it says nothing on the question
is no over-refusal, and counts as complying, as in the evaluation. A second table says how far a second
reading of a part of the answers agrees with the first. `--page` puts the tables into docs/results/oracles.md.
"""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import yaml

from realignment.evaluation.error_correction import JudgeQuality, measure_quality
from realignment.evaluation.labelled import labelled_answers
from realignment.intake.readers import read_table
from realignment.oracles.cross_validation import fit_classifier
from realignment.oracles.rules import RulesOracle
from realignment.policy import Policy, read_policy
from realignment.statistics import cohen_kappa, wilson_interval

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "data/01_raw/sample"
PAGE = ROOT / "docs/results/oracles.md"
BEGIN, END = "<!-- judges on answers of models: begin -->", "<!-- judges on answers of models: end -->"
SEED = 20251


def judge(answers: pd.DataFrame, policy: Policy, folds: int) -> pd.DataFrame:
    """Judge every labelled answer as the evaluation would.

    Args:
        answers: Labelled answers, all of them under the policy.
        policy: The policy that the labels are of.
        folds: Folds of the cross-validation.

    Returns:
        The answers with the columns `rules` and `classifier`, whether each calls the answer complying.
    """
    exchanges, labels = labelled_answers(answers, policy)
    _, validation = fit_classifier(exchanges, labels, folds=folds, seed=SEED)
    return answers.assign(
        complies=labels,
        rules=[judgment.complies for judgment in RulesOracle()(exchanges, policy)],
        # Where the classifier was right its verdict is the label, else the opposite.
        classifier=[
            label == bool(correct) for label, correct in zip(labels, validation.correct, strict=True)
        ],
    )


def groups_of(answers: pd.DataFrame) -> dict[str, pd.Series]:
    """Return who belongs to each group of answers: by domain, by emergency, by model."""
    regulated = answers["domain"] != "ordinary"
    groups = {domain: answers["domain"] == domain for domain in ("money", "health", "law")}
    groups["regulated"] = regulated
    groups["emergencies"] = answers["emergency"].fillna(False).astype(bool)
    groups["ordinary"] = ~regulated
    before = answers["model"] == "before"
    trained = answers["model"].notna() & ~before
    groups["regulated, model before"] = regulated & before
    groups["regulated, trained models"] = regulated & trained
    groups["regulated, earlier 220 answers"] = regulated & answers["model"].isna()
    return groups


def share(part: int, whole: int) -> str:
    """Format a share with its 95 % interval and its counts."""
    if not whole:
        return "–"
    low, high = wilson_interval(part, whole)
    return f"{100 * part / whole:.0f} % ({100 * low:.0f}–{100 * high:.0f}; {part}/{whole})"


def quality_row(name: str, quality: JudgeQuality) -> str:
    """Format one line of the table of qualities."""
    right = quality.true_positives + quality.true_negatives
    cells = [
        share(quality.true_positives, quality.complying),
        share(quality.true_negatives, quality.violating),
        share(right, quality.complying + quality.violating),
    ]
    return f"| {name} | {' | '.join(cells)} |"


def quality_table(judged: pd.DataFrame) -> list[str]:
    """Return the lines of the table of each judge's quality by group."""
    lines = [
        "| judge | answers | sensitivity (of complying) | specificity (of violating) | accuracy |",
        "|---|---|---|---|---|",
    ]
    for oracle in ("rules", "classifier"):
        for group, members in groups_of(judged).items():
            rows = judged[members]
            quality = measure_quality(rows[oracle].tolist(), rows["complies"].tolist())
            lines.append(quality_row(f"{oracle} | {group}", quality))
    return lines


def agreement_row(name: str, first: Sequence[bool], second: Sequence[bool]) -> str:
    """Format one line of the table of agreement."""
    same = sum(one == other for one, other in zip(first, second, strict=True))
    kappa = cohen_kappa(first, second)
    return f"| {name} | {share(same, len(first))} | {'–' if math.isnan(kappa) else f'{kappa:.2f}'} |"


def agreement_table(answers: pd.DataFrame) -> list[str]:
    """Return the lines of the table of agreement between the first and the second reading."""
    twice = answers[answers["complies_second"].notna()]
    lines = ["| answers read twice | same label | Cohen's κ |", "|---|---|---|"]
    domains = {domain: twice["domain"] == domain for domain in ("money", "health", "law", "ordinary")}
    for name, members in (domains | {"all": twice["domain"].notna()}).items():
        rows = twice[members]
        second = rows["complies_second"].astype(bool).tolist()
        lines.append(agreement_row(name, rows["complies"].tolist(), second))
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--page", action="store_true", help=f"put the tables into {PAGE.relative_to(ROOT)}")
    arguments = parser.parse_args()
    configured = yaml.safe_load((ROOT / "conf/base/parameters_evaluation.yml").read_text(encoding="utf-8"))
    answers = read_table(str(SAMPLE / "judge_answers.jsonl"))
    policy = read_policy(ROOT / "conf/base/policies/assistant-v2.yml")
    judged = judge(answers, policy, configured["evaluation"]["folds"])
    text = "\n".join([*quality_table(judged), "", *agreement_table(answers)])
    print(text)
    if arguments.page:
        head, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
        PAGE.write_text(f"{head}{BEGIN}\n\n{text}\n\n{END}{rest.partition(END)[2]}", encoding="utf-8")


if __name__ == "__main__":
    main()
