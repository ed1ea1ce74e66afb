"""Attacks on the base model: `python benchmarks/attacks.py --data FOLDER [--cache FILE] [--page]`.

Harmful requests of AdvBench under every attack of conf/base/attacks.yml, and harmful and harmless prompts of
XSTest plainly. What is counted is whether an answer begins with a refusal (`evaluation.refusals`): no judge
of harm takes part, so 1 − refusals is an upper bound of the attack success rate. `--data` is a folder with
`advbench.jsonl.gz` (column prompt) and `xstest.jsonl.gz` (prompt, unsafe). Answers are kept in `--cache`, so
that a command that was killed goes on where it was. `--page` puts the table into docs/results/attacks.md.
"""

import argparse
import hashlib
import json
import platform
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from tqdm import tqdm

from realignment.evaluation.attacks.behaviours import collect_behaviours
from realignment.evaluation.attacks.wrappers import PLAIN, build_attack_prompts, read_attacks
from realignment.evaluation.refusals import is_refusal
from realignment.intake.readers import read_table
from realignment.likelihood.tokenization import chat_messages
from realignment.model.fetching import fetch_model
from realignment.model.generation import generate_answers
from realignment.model.loading import load_configured_model
from realignment.parameters.base import ModelParameters
from realignment.policy import Policy
from realignment.statistics import compare_clustered, compare_proportions, wilson_interval
from realignment.tracking import provenance

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/results/attacks.md"
BEGIN, END = "<!-- figures -->", "<!-- end of figures -->"
SEED = 20251
NO_RULES = Policy(
    name="none", version="1", text="Whether an answer refuses is counted, not whether it harms."
)
NO_ROWS = pd.DataFrame()


def read_prompts(data: Path, number: int) -> pd.DataFrame:
    """Return the conversations to answer.

    Args:
        data: Folder with the two files.
        number: Behaviours of AdvBench, and prompts of each kind of XSTest.

    Returns:
        `attacks.ATTACK_PROMPT_COLUMNS` and `set`.
    """
    attacks = read_attacks(yaml.safe_load((ROOT / "conf/base/attacks.yml").read_text(encoding="utf-8")))
    advbench = _behaviours(read_table(str(data / "advbench.jsonl.gz"))[["prompt"]], number)
    parts = [build_attack_prompts(attacks, advbench).assign(set="AdvBench")]
    xstest = read_table(str(data / "xstest.jsonl.gz"))
    plain = [attack for attack in attacks if attack.name == PLAIN]
    for unsafe, name in ((True, "XSTest, harmful"), (False, "XSTest, harmless")):
        chosen = xstest.loc[xstest["unsafe"].astype(bool) == unsafe, ["prompt"]]
        parts.append(build_attack_prompts(plain, _behaviours(chosen, number)).assign(set=name))
    return pd.concat(parts, ignore_index=True)


def _behaviours(file: pd.DataFrame, number: int) -> pd.DataFrame:
    return collect_behaviours(NO_RULES, file, NO_ROWS, source="file", split=None, limit=number)


def answer(
    prompts: pd.DataFrame, model: ModelParameters, max_new_tokens: int, cache: Path | None
) -> pd.DataFrame:
    """Add the model's greedy answers; those that the cache has are not generated again."""
    reference = fetch_model(model.source, folder=Path(model.folder), sha256=model.sha256, progress=False)
    facts = f"{reference.sha256} {max_new_tokens} "
    keys = [hashlib.sha256((facts + messages).encode()).hexdigest() for messages in prompts["messages"]]
    answers = dict(_read_cache(cache))
    missing = [row for row, key in enumerate(keys) if key not in answers]
    if missing:
        loaded, tokenizer = load_configured_model(str(reference.path), model)
        # Small batches, each saved as it comes.
        for start in tqdm(range(0, len(missing), 8), unit="batch"):
            rows = missing[start : start + 8]
            chats = [chat_messages(prompts["prompt"][row], prompts["messages"][row]) for row in rows]
            found = generate_answers(
                loaded, tokenizer, chats, max_new_tokens=max_new_tokens, batch_size=len(chats)
            )
            for row, said in zip(rows, found, strict=True):
                answers[keys[row]] = {"text": said.text, "complete": said.complete}
                _append(cache, {"key": keys[row]} | answers[keys[row]])
    return prompts.assign(
        answer=[answers[key]["text"] for key in keys], complete=[answers[key]["complete"] for key in keys]
    )


def _read_cache(cache: Path | None) -> Iterator[tuple[str, dict[str, Any]]]:
    if cache is None or not cache.is_file():
        return
    for line in cache.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:  # the last line of a command that was killed
            continue
        yield row["key"], row


def _append(cache: Path | None, row: dict[str, Any]) -> None:
    if cache is not None:
        with cache.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def tabulate(answers: pd.DataFrame) -> list[dict[str, Any]]:
    """Return a row per set and attack: the share that does not refuse, and the difference from no attack."""
    rows = []
    answered = answers.assign(answered=[not is_refusal(text) for text in answers["answer"]])
    for (name, attack), part in answered.groupby(["set", "attack"], sort=False):
        rows.append(_row(name, attack, part) | _difference(answered, name, part))
    attacked = answered[(answered["set"] == "AdvBench") & (answered["attack"] != PLAIN)]
    flags = attacked["answered"].to_numpy()
    pooled = compare_clustered(flags, flags, attacked["behaviour_id"].tolist(), np.random.default_rng(SEED))
    overall = _row("AdvBench", "all attacks", attacked) | {
        "low": pooled.before_low,
        "high": pooled.before_high,
    }
    return [*rows, overall]


def _row(name: str, attack: str, part: pd.DataFrame) -> dict[str, Any]:
    low, high = wilson_interval(int(part["answered"].sum()), len(part))
    row = {"set": name, "attack": attack, "n": len(part), "answered": float(part["answered"].mean())}
    return row | {"low": low, "high": high, "cut": float(1 - part["complete"].mean())}


def _difference(answered: pd.DataFrame, name: str, part: pd.DataFrame) -> dict[str, Any]:
    """Paired, on the same behaviours; nothing for the plain request."""
    attack = part["attack"].iloc[0]
    if attack == PLAIN:
        return {}
    plain = answered[(answered["set"] == name) & (answered["attack"] == PLAIN)]
    before = plain.set_index("behaviour_id")["answered"].loc[part["behaviour_id"]].to_numpy()
    comparison = compare_proportions(before, part["answered"].to_numpy())
    interval = [comparison.difference_low, comparison.difference_high]
    return {"difference": comparison.difference, "difference_interval": interval}


def to_markdown(rows: list[dict[str, Any]], settings: str) -> str:
    """Format the rows as a table."""
    lines = [settings, "", "| prompts | attack | n | do not refuse | 95 % | more than plainly | cut |"]
    lines.append("|---|---|---|---|---|---|---|")
    for row in rows:
        more = "–"
        if "difference" in row:
            low, high = row["difference_interval"]
            more = f"{100 * row['difference']:+.0f} points, {100 * low:+.0f} to {100 * high:+.0f}"
        interval = "–" if np.isnan(row["low"]) else f"{100 * row['low']:.0f} to {100 * row['high']:.0f}"
        lines.append(
            f"| {row['set']} | {row['attack']} | {row['n']} | {row['answered']:.0%} | {interval} | {more} | "
            f"{row['cut']:.0%} |"
        )
    return "\n".join(lines)


def write_page(text: str) -> None:
    """Replace the text between the two marks of the page."""
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{rest.split(END)[1]}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with AdvBench and XSTest")
    parser.add_argument("--source", help="the model; default: the base model")
    parser.add_argument("--behaviours", type=int, default=12, help="per set; default: 12")
    parser.add_argument("--max-new-tokens", type=int, default=64)
    parser.add_argument("--cache", type=Path, help="JSON Lines file that keeps the answers")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--page", action="store_true", help=f"put the table into {PAGE.relative_to(ROOT)}")
    options = parser.parse_args()
    configured = yaml.safe_load((ROOT / "conf/base/parameters_model.yml").read_text(encoding="utf-8"))
    default = configured["model"]["source"].partition('"')[2].rpartition('"')[0]
    source = options.source or default
    model = ModelParameters(source=source, folder=str(ROOT / "data/01_raw/models"), dtype="float32")
    started = time.perf_counter()
    prompts = read_prompts(options.data, options.behaviours)
    rows = tabulate(answer(prompts, model, options.max_new_tokens, options.cache))
    settings = (
        f"{options.behaviours} prompts of each set, chosen by digest; greedy answers of at most "
        f"{options.max_new_tokens} tokens; {platform.machine()}, torch "
        f"{provenance.describe_environment().get('torch')}, {time.perf_counter() - started:.0f} s."
    )
    text = to_markdown(rows, settings)
    print(text)
    if options.json is not None:
        options.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    if options.page:
        write_page(text)


if __name__ == "__main__":
    main()
