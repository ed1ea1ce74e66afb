"""The policies inferred from three data sets: `python benchmarks/inferred_policies.py [--page]`.

Principles over features alone: no text of a pair is printed. `--page` puts the tables into
docs/results/inferred-policies.md. A data set that is not there is reported as missing.
"""

import argparse
from pathlib import Path
from typing import Any

import yaml

from realignment import infer_policy, intake
from realignment.intake.readers import read_table
from realignment.parameters import PrinciplesParameters

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/results/inferred-policies.md"
BEGIN, END = "<!-- figures -->", "<!-- end of figures -->"
SEED = 20251
DATA = {
    "The embedded sample": ROOT / "data/01_raw/sample/pairs.jsonl",
    "PKU-SafeRLHF, recombined": ROOT.parent / "shared/data/pku_safety/pairs.jsonl.gz",
    "TruthfulQA": ROOT.parent / "shared/data/truthfulness/pairs.jsonl.gz",
}


def infer_policy_of(file: Path) -> infer_policy.Explanation:
    """Infer the principles of one data set, with the parameters of conf/base."""
    configured = yaml.safe_load((ROOT / "conf/base/parameters_infer_policy.yml").read_text(encoding="utf-8"))
    raw = read_table(str(file))
    pairs = intake.clean_pairs(raw, invalid="skip", max_prompt_chars=8000, long_prompts="drop").pairs
    return infer_policy.infer_principles(pairs, PrinciplesParameters(**configured["principles"]), seed=SEED)


def to_markdown(name: str, explanation: infer_policy.Explanation) -> str:
    """Format the report and the table of one data set."""
    report = explanation.report
    lines = [
        f"## {name}",
        "",
        f"{report['n']} pairs of {report['prompts']} prompts, {report['features']} features in use. Out of "
        f"fold the principles predict {format_share(report['accuracy'])} of the choices that they have a say "
        f"in; the longer response was chosen in {format_share(report['longer_chosen'])}.",
        "",
    ]
    if explanation.principles.empty:
        return "\n".join([*lines, "**No principle found.**"])
    lines += [
        "| principle | coefficient | support | agreement | q |",
        "|---|---|---|---|---|",
        *map(format_row, explanation.principles.to_dict("records")),
    ]
    return "\n".join(lines)


def format_row(line: dict[Any, Any]) -> str:
    """Format one principle."""
    coefficient = (
        f"{line['coefficient']:+.2f} ({line['coefficient_low']:+.2f} to {line['coefficient_high']:+.2f})"
    )
    agreement = f"{line['agreement']:.0%} ({100 * line['low']:.0f} to {100 * line['high']:.0f})"
    q_value = "< 0.001" if line["q_value"] < 0.001 else f"{line['q_value']:.3f}"
    return f"| {line['principle']} | {coefficient} | {line['support']:.0%} | {agreement} | {q_value} |"


def format_share(share: dict[str, Any]) -> str:
    """Format a share with its interval, such as `85 % (81 to 88)`."""
    if share["share"] is None:
        return "none"
    low, high = share["interval"]
    return f"{share['share']:.0%} ({100 * low:.0f} to {100 * high:.0f})"


def write_page(text: str) -> None:
    """Replace the text between the two marks of the page."""
    page = PAGE.read_text(encoding="utf-8")
    before, rest = page.split(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{rest.split(END)[1]}", encoding="utf-8")


def main() -> None:
    """Infer the policies, print the tables, and write the page if requested."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--page", action="store_true", help="write docs/results/inferred-policies.md")
    options = parser.parse_args()
    parts = [
        to_markdown(name, infer_policy_of(file)) if file.is_file() else f"## {name}\n\nNot on this machine."
        for name, file in DATA.items()
    ]
    text = "\n\n".join(parts)
    print(text)
    if options.page:
        write_page(text)


if __name__ == "__main__":
    main()
