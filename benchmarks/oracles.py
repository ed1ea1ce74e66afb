"""The speed and memory of oracles: `python benchmarks/oracles.py [ROW …] [--json FILE]`.

Every figure is a ratio of two measurements of one run, or a rate of one core. Rows:

- `local_lm`: 200 pairs under a policy of 600 tokens, judged by the oracle, and every fifth response by
  `generate` with the whole prompt; the ratio of responses per second, with equal verdicts. It needs the base
  model.
- `rules`: responses a second that the policy of the sample judges, in seconds of processor time.
- `streaming`: peak memory in GB of `kedro run --pipelines judge_stream` over a million pairs, and a tenth.
- `chat`: throughput with a local server that answers in 50 ms, at concurrency 64, over the ideal throughput.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from chat_server import ANSWER_S, serve, time_bare_client

from realignment import intake
from realignment.intake.readers import read_table
from realignment.judging import list_exchanges
from realignment.oracles.rules import RulesOracle
from realignment.policy import Policy, read_policy
from realignment.records import Exchange

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "data/01_raw/sample/pairs.jsonl"
POLICY = read_policy(ROOT / "conf/base/policies/assistant-v2.yml")
GOALS = {"local_lm": 6.0, "rules": 20_000.0, "streaming": 1.0, "chat": 0.9}
LESS_IS_BETTER = {"streaming"}


def sample_exchanges() -> list[Exchange]:
    raw = read_table(str(SAMPLE))
    pairs = intake.clean_pairs(raw, invalid="fail", max_prompt_chars=8000, long_prompts="fail").pairs
    both = zip(list_exchanges(pairs, "chosen"), list_exchanges(pairs, "rejected"), strict=True)
    return [exchange for pair in both for exchange in pair]


# --- local_lm


def measure_local_lm(responses: int, policy_tokens: int) -> float:
    """Measure the responses per second of processor time, of the oracle over those of `generate`."""
    import torch
    from transformers import logging

    from realignment.oracles.loading import load_local_lm
    from realignment.parameters import LocalLMParameters

    logging.set_verbosity_error()
    torch.set_num_threads(1)
    folders = sorted((ROOT / "data/01_raw/models").glob("*/model.safetensors"))
    if not folders:
        sys.exit("No base model in data/01_raw/models: `kedro run --pipelines model` fetches it.")
    source = str(folders[0].parent)
    oracle = load_local_lm(LocalLMParameters(source=source, folder=source, dtype="float32", device="cpu"))
    policy = build_policy(policy_tokens, oracle.tokenizer)
    exchanges = sample_exchanges()[:responses]
    start = time.process_time()
    verdicts = [judgment.complies for judgment in oracle(exchanges, policy)]
    ours = time.process_time() - start
    start = time.process_time()
    generated = [ask_by_generate(oracle, policy, exchange) for exchange in exchanges[::5]]
    theirs = time.process_time() - start
    print(
        f"local_lm: {ours:.1f} s for {len(verdicts)} responses, generate: {theirs:.1f} s for "
        f"{len(generated)}; policy of {policy_tokens} tokens, {generated.count(True)} of these comply"
    )
    differences = sum(a != b for a, b in zip(verdicts[::5], generated, strict=True))
    if differences:
        sys.exit(f"{differences} verdicts differ")
    return (theirs / len(generated)) / (ours / len(verdicts))


def build_policy(tokens: int, tokenizer: Any) -> Policy:
    """Repeat the text of the sample's policy, and cut it to a number of tokens."""
    text = POLICY.text + "\n".join(rule.description for rule in POLICY.rules)
    ids = tokenizer(text * 10, add_special_tokens=False)["input_ids"][:tokens]
    return Policy(name="policy", version="1", text=tokenizer.decode(ids))


def ask_by_generate(oracle: Any, policy: Policy, exchange: Exchange) -> bool:
    """Return a verdict by the usual method: generate one token after the whole prompt."""
    text = oracle.question.render(policy, exchange)
    inputs = oracle.tokenizer(text, add_special_tokens=False, return_tensors="pt")
    answers = [oracle.tokenizer(a, add_special_tokens=False)["input_ids"][0] for a in ("Yes", "No")]
    output = oracle.model.generate(
        **inputs, max_new_tokens=1, do_sample=False, output_logits=True, return_dict_in_generate=True
    )
    yes, no = output.logits[0][0, answers].tolist()
    return yes >= no


# --- rules


def measure_rules() -> float:
    """Measure responses per second, the median of five rounds over ten times the sample."""
    exchanges = sample_exchanges() * 10
    oracle = RulesOracle()
    oracle(exchanges[:100], POLICY)
    rates = []
    for _ in range(5):
        start = time.process_time()
        oracle(exchanges, POLICY)
        rates.append(len(exchanges) / (time.process_time() - start))
    return statistics.median(rates)


# --- streaming


def measure_streaming(pairs: int) -> float:
    """Measure the peak memory in GB of the whole command, in its own process."""
    peaks = {}
    for count in (pairs // 10, pairs):
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "pairs.jsonl"
            with source.open("w", encoding="utf-8") as file:
                file.writelines(many_pairs(count))
            seconds, peaks[count] = run_judge_stream(source, Path(folder) / "data")
            (report,) = Path(folder).glob("data/08_reporting/triage_report.json/*/triage_report.json")
            counts = json.loads(report.read_text())["counts"]
        print(f"streaming: {count} pairs, {counts}, {seconds:.0f} s, {peaks[count]:.3f} GB", flush=True)
        assert sum(counts.values()) == count, counts
    print(f"streaming: {peaks[pairs] / peaks[pairs // 10]:.2f} times the memory for 10 times the pairs")
    return peaks[pairs]


def run_judge_stream(source: Path, data: Path) -> tuple[float, float]:
    """Run the pipeline; return seconds, and peak memory in GB."""
    params = f"pairs={source},data_root={data},judging.oracle=rules"
    command = [sys.executable, "-m", "kedro", "run", "--pipelines", "judge_stream", "--params", params]
    tracked = {"MLFLOW_TRACKING_URI": f"sqlite:///{data.parent}/mlflow.db", "DO_NOT_TRACK": "1"}
    start = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, env=os.environ | tracked, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(command)} ended with {process.returncode}")
    return time.perf_counter() - start, used.ru_maxrss * 1024 / 1e9


def many_pairs(count: int) -> Iterator[str]:
    """Yield the pairs of the sample repeatedly, each with its own number in prompt and id."""
    rows = [json.loads(line) for line in SAMPLE.read_text(encoding="utf-8").splitlines()]
    for number in range(count):
        row = rows[number % len(rows)]
        changed = {"pair_id": f"{row['pair_id']}-{number}", "prompt": f"{row['prompt']} ({number})"}
        yield json.dumps(row | changed, ensure_ascii=False) + "\n"


# --- chat


def measure_chat(requests: int, concurrency: int) -> float:
    """Measure the seconds of an ideal client (requests / concurrency · 50 ms) over those of the oracle.

    The best of four rounds counts, since other work on the machine can only add seconds. Before each round a
    client that parses nothing shows the limit that server and machine set.
    """
    from realignment.oracles.chat import ChatOracle
    from realignment.parameters import ChatParameters

    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    server = context.Process(target=serve, args=(theirs,), daemon=True)
    server.start()
    try:
        port = ours.recv()
        url = f"http://127.0.0.1:{port}/v1"
        oracle = ChatOracle(ChatParameters(base_url=url, model="m", concurrency=concurrency))
        exchanges = [Exchange(f"Question {n}?", "An answer in general terms.") for n in range(requests)]
        oracle(exchanges[: 2 * concurrency], POLICY)  # connections and imports
        rounds = [
            (time_bare_client(port, requests, concurrency), *time_call(oracle, exchanges)) for _ in range(4)
        ]
    finally:
        server.terminate()
    ideal, (bare, ours_s, processor) = requests / concurrency * ANSWER_S, map(min, zip(*rounds, strict=True))
    print(
        f"chat: {requests} requests in {ours_s:.2f} s, {processor / requests * 1e3:.2f} ms of processor time "
        f"each; a bare client in {bare:.2f} s, which is {ideal / bare:.3f} of the ideal"
    )
    return ideal / ours_s


def time_call(oracle: Any, exchanges: list[Exchange]) -> tuple[float, float]:
    """Measure one call in seconds of wall-clock time and of processor time."""
    start = time.perf_counter()
    process_start = time.process_time()
    judgments = oracle(exchanges, POLICY)
    seconds = time.perf_counter() - start
    process_seconds = time.process_time() - process_start
    assert all(judgment.complies for judgment in judgments)
    return seconds, process_seconds


def main() -> None:
    """Measure the rows, print them, and write them if requested."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(GOALS)}; none: all")
    parser.add_argument("--json", type=Path, help="write {row: {ratio, goal, met}} to this file")
    parser.add_argument("--pairs", type=int, default=1_000_000, help="of the row streaming")
    parser.add_argument("--responses", type=int, default=400, help="of the row local_lm")
    options = parser.parse_args()
    measures: dict[str, Callable[[], float]] = {
        "rules": measure_rules,
        "chat": lambda: measure_chat(requests=6400, concurrency=64),
        "streaming": lambda: measure_streaming(options.pairs),
        "local_lm": lambda: measure_local_lm(options.responses, policy_tokens=600),
    }
    names = options.rows or list(measures)
    unknown = set(names) - set(measures)
    if unknown:
        parser.error(f"unknown rows {', '.join(sorted(unknown))}; known: {', '.join(measures)}")
    table = {}
    for row in names:
        ratio = measures[row]()
        goal = GOALS[row]
        met = ratio <= goal if row in LESS_IS_BETTER else ratio >= goal
        table[row] = {"ratio": ratio, "goal": goal, "met": met}
        print(f"{row}: {ratio:.3g}, goal {goal:g}: {'met' if met else 'not met'}", flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
