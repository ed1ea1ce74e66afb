"""The quality of a model's own corrections: `python benchmarks/corrections.py [--page] [--json FILE]`.

The reference model writes for every PUNISH pair of the embedded sample, also for those that people have
corrected: for half of these people's corrections are ignored, with the other half the machine's are compared.
`--page` puts the figures into docs/results/corrections.md.
"""

import argparse
import json
import platform
import time
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from realignment import corrections, intake, judging, triage
from realignment.intake.readers import read_table
from realignment.oracles.rules import RulesOracle
from realignment.parameters import CorrectionsParameters, JudgingParameters
from realignment.parameters.base import ModelParameters
from realignment.policy import read_policy
from realignment.tracking import provenance

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/results/corrections.md"
BEGIN, END = "<!-- figures -->", "<!-- end of figures -->"
SEED = 20251


def parameters(**changes: Any) -> CorrectionsParameters:
    """Read the stage's own defaults, with the model as writer."""
    configured = yaml.safe_load((ROOT / "conf/base/parameters_corrections.yml").read_text(encoding="utf-8"))
    return CorrectionsParameters(**configured["corrections"] | {"writer": "model"} | changes)


def punish_pairs(policy: Any) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return all pairs of the sample, and its PUNISH pairs by the rules."""
    raw = read_table(str(ROOT / "data/01_raw/sample/pairs.jsonl"))
    pairs = intake.clean_pairs(raw, invalid="skip", max_prompt_chars=8000, long_prompts="drop").pairs
    judgments = judging.judge_pairs(pairs, policy, RulesOracle())
    triaged = triage.triage(pairs, judgments, min_confidence=0.5)
    return pairs, triaged[triaged["disposition"] == "PUNISH"].reset_index(drop=True)


def measure(source: str, samples: int, number: int | None) -> dict[str, Any]:
    """Write corrections, check their quality, verify them, and compare them with people's."""
    policy = read_policy(ROOT / "conf/base/policies/assistant-v2.yml")
    pairs, punish = punish_pairs(policy)
    written = punish if number is None else punish.sample(number, random_state=SEED).sort_index()
    settings = parameters(samples=samples)
    corrected = written[written["correction"].notna()]
    ignored = set(corrected.sample(frac=0.5, random_state=SEED)["pair_id"])
    known_pairs = pairs.assign(correction=pairs["correction"].mask(pairs["pair_id"].isin(ignored)))
    people = corrections.collect_people_candidates(written, known_pairs, pd.DataFrame())
    model = ModelParameters(source=source, folder=str(ROOT / "data/01_raw/models"))
    writer = corrections.build_writer(settings, model, JudgingParameters(oracle="rules"), seed=SEED)
    start = time.perf_counter()
    machine = corrections.write_candidates(
        written, policy, writer, samples=samples, max_words=settings.max_words
    )
    seconds = time.perf_counter() - start
    candidates = pd.concat([people, machine], ignore_index=True)
    gate = corrections.QualityGate(**settings.quality.model_dump())
    assessed = corrections.assess_quality(candidates, punish, gate, seed=SEED)
    verified = corrections.verify_candidates(assessed, punish, policy, RulesOracle(), authors_vouch=True)
    chosen = corrections.choose_corrections(verified, min_confidence=settings.min_confidence)
    machine_only = set(written["pair_id"]) - set(people["pair_id"])
    return {
        "report": corrections.report_corrections(written, chosen),
        "alone": {
            "pairs": len(machine_only),
            "corrected": int(chosen.loc[chosen["pair_id"].isin(machine_only), "selected"].sum()),
        },
        "leakage": corrections.measure_leakage(chosen, seed=SEED),
        "seconds": seconds,
        "settings": settings.model_dump(include={"samples", "temperature", "top_p", "max_new_tokens"}),
    }


def to_markdown(figures: dict[str, Any]) -> str:
    """Format the figures as tables."""
    report = figures["report"]
    alone = figures["alone"]
    lines = [
        f"{figures['settings']}, {figures['seconds']:.0f} s on {platform.machine()} with torch "
        f"{provenance.describe_environment().get('torch')}.",
        "",
        "| writer | candidates | through the gate | comply | pass | pairs with a passing one |",
        "|---|---|---|---|---|---|",
    ]
    for writer, part in report["writers"].items():
        counts = [part["candidates"], part["judged"], part["complies"]]
        shares = [format_share(part["passing"]), format_share(part["pairs_with_a_passing_one"])]
        lines.append(f"| {writer} | {' | '.join(map(str, counts + shares))} |")
    lines += [
        "",
        f"Of the {alone['pairs']} pairs that were left to the machine, {alone['corrected']} got a "
        f"correction; the other {alone['pairs'] - alone['corrected']} fall back to `loss.punish`.",
        "",
        "| why the machine's candidates fail | candidates |",
        "|---|---|",
    ]
    model = report["writers"]["model"]
    lines += [f"| gate: {flaw} | {n} |" for flaw, n in model["flaws"].items()]
    lines += [f"| rule: {rule} | {n} |" for rule, n in model["rules_broken"].items()]
    lines += [
        "",
        "| leakage | people | machine | difference | 95 % | n | paired |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in figures["leakage"].to_dict("records"):
        interval = (
            f"{row['low']:+.2f} to {row['high']:+.2f}" if row["low"] == row["low"] else "none: constant"
        )
        lines.append(
            f"| {row['group']}: {row['metric']} | {row['people']:.2f} | {row['value']:.2f} "
            f"| {row['difference']:+.2f} | {interval} | {row['n_people']}, {row['n_writer']} "
            f"| {'yes' if row['paired'] else 'no'} |"
        )
    return "\n".join(lines)


def format_share(part: dict[str, Any]) -> str:
    """Format a share with its interval, such as `12 of 40 (30 %, 18 to 45)`."""
    low, high = part["interval"]
    return f"{part['n']} of {part['of']} ({part['share']:.0%}, {100 * low:.0f} to {100 * high:.0f})"


def write_page(text: str) -> None:
    """Replace the text between the two marks of the page."""
    page = PAGE.read_text(encoding="utf-8")
    before, rest = page.split(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{rest.split(END)[1]}", encoding="utf-8")


def main() -> None:
    """Parse the arguments, measure, and print the tables."""
    configured = yaml.safe_load((ROOT / "conf/base/parameters_model.yml").read_text(encoding="utf-8"))
    default = configured["model"]["source"].partition('"')[2].rpartition('"')[0]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", default=default, help="the writing model; default: the base model")
    parser.add_argument("--samples", type=int, default=4, help="candidates per pair")
    parser.add_argument("--pairs", type=int, help="number of PUNISH pairs, drawn at random; default: all")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--page", action="store_true", help="and into docs/results/corrections.md")
    options = parser.parse_args()
    figures = measure(options.source, options.samples, options.pairs)
    text = to_markdown(figures)
    print(text)
    if options.json is not None:
        table = figures["leakage"].to_dict("records")
        options.json.write_text(json.dumps(figures | {"leakage": table}, indent=2), encoding="utf-8")
    if options.page:
        write_page(text)


if __name__ == "__main__":
    main()
