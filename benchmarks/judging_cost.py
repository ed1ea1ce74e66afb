"""An estimate of what judging costs: `python benchmarks/judging_cost.py [--pairs N …] [--write]`.

Nothing is measured here: tokens follow from the shape of a request, time from published throughput (see
`MODELS`) and, as a check, from FLOPs. `--write` puts the tables into docs/how-to/judge-at-scale.md.

A request is policy and instruction, then the prompt, then the response, then the question; a server with
prefix caching computes a prefix that it has seen before only once, in whole blocks of tokens.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).resolve().parent.parent / "docs/how-to/judge-at-scale.md"
BEGIN, END = "<!-- begin judging_cost -->", "<!-- end judging_cost -->"
H100_BF16_FLOPS = 989e12
"""Dense bf16 FLOP/s of an H100 SXM, by its data sheet."""


@dataclass(frozen=True)
class Model:
    """A model with two published measurements of its throughput.

    Attributes:
        name: The model's size.
        weights: Weights that every token is multiplied with, without embeddings.
        gpus: H100s of the measurements, which one copy needs.
        long: Tokens read and written by a request, and tokens written per second under full load.
        short: The same for short requests.
        check: A third measurement, of longer requests.
    """

    name: str
    weights: float
    gpus: int
    long: tuple[int, int, float]
    short: tuple[int, int, float]
    check: tuple[int, int, float]

    def seconds_per_token(self) -> tuple[float, float]:
        """Return the seconds of a token read and of one written, which reproduce both measurements."""
        read, written, rate = self.long
        other_read, other_written, other_rate = self.short
        # Seconds per request = read · x + written · y: two equations, solved by Cramer's rule.
        first = written / rate
        second = other_written / other_rate
        determinant = read * other_written - other_read * written
        return (
            (first * other_written - second * written) / determinant,
            (read * second - other_read * first) / determinant,
        )


# NVIDIA/TensorRT-LLM, docs/source/performance/perf-overview.md (release 1.0, commit 00f37686): FP8, H100 SXM,
# "Total Output Throughput", rows 2048/128, 128/128 and 5000/500 of Llama 3.1 8B (TP1), Llama 3.3 70B (TP2).
MODELS = (
    Model("8B", 7.0e9, 1, (2048, 128, 3450.0), (128, 128, 28312.0), (5000, 500, 3459.0)),
    Model("70B", 68.5e9, 2, (2048, 128, 762.0), (128, 128, 6378.0), (5000, 500, 898.0)),
)


@dataclass(frozen=True)
class Work:
    """Requests and tokens of all pairs.

    Attributes:
        requests: Number of requests.
        read: Prompt tokens of the requests, cached ones included.
        computed: Those of them that are not in the cache.
        written: Tokens of replies.
    """

    requests: float
    read: float
    computed: float
    written: float


def work(o: argparse.Namespace) -> dict[str, Work]:
    """Return the work by what a server caches; each entry saves more than the one before."""
    whole = o.policy + o.prompt + o.response + o.question
    # Only whole blocks are cached.
    policy = o.policy // o.block * o.block
    both = (o.policy + o.prompt) // o.block * o.block

    def of(requests: float, computed: float) -> Work:
        """Scale requests and computed tokens of one pair to all pairs."""
        return Work(*(o.pairs * n for n in (requests, requests * whole, computed, requests * o.reply)))

    first = whole - policy
    return {
        "nothing": of(2, 2 * whole),
        "policy": of(2, 2 * first),
        "policy and prompt": of(2, first + whole - both),
        "both; `rejected` only of conflicts": of(1 + o.conflicts, first + o.conflicts * (whole - both)),
    }


def optimism(model: Model) -> float:
    """Return the predicted throughput of the check over the measured one; above 1 is too optimistic."""
    seconds_read, seconds_written = model.seconds_per_token()
    read, written, rate = model.check
    return written / (read * seconds_read + written * seconds_written) / rate


def gpu_hours(model: Model, amount: Work) -> float:
    """Return the H100-hours of the work by the published throughput."""
    read, written = model.seconds_per_token()
    return (amount.computed * read + amount.written * written) * model.gpus / 3600


def flops(model: Model, tokens: float) -> float:
    """Return two FLOPs per weight and token; attention, a few percent at these lengths, is left out."""
    return 2 * model.weights * tokens


def gpu_table(o: argparse.Namespace) -> list[str]:
    """Format a line for each model and each state of the cache."""
    head = (
        "model", "computed once", "tokens computed", "written", "prefill FLOPs", "hours on 1 H100",
        "hours on 8", "requests/s on 8", "$", f"by FLOPs: H100-hours, bf16, {o.mfu:.0%} of peak",
    )  # fmt: skip
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for model in MODELS:
        for kept, amount in work(o).items():
            hours = gpu_hours(model, amount)
            by_flops = flops(model, amount.computed + amount.written) / (H100_BF16_FLOPS * o.mfu) / 3600
            alone = f"{hours:.1f}" if model.gpus == 1 else f"– ({hours / model.gpus:.1f} on {model.gpus})"
            cells = (
                model.name, kept, f"{amount.computed / 1e9:.2f} G", f"{amount.written / 1e9:.2f} G",
                f"{flops(model, amount.computed):.1e}", alone, f"{hours / 8:.2f}",
                f"{amount.requests / hours * 8 / 3600:,.0f}", f"{hours * o.gpu_price:,.0f}",
                f"{by_flops:.1f}",
            )  # fmt: skip
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def api_table(o: argparse.Namespace) -> list[str]:
    """Format the cost of a hosted model by the prices of the options."""
    lines = ["| hosted, by token | tokens read | of these kept | $ | $ as a batch |", "|---|---|---|---|---|"]
    for kept, amount in work(o).items():
        cached = amount.read - amount.computed
        prompt = amount.computed * o.prompt_price + cached * o.kept_price
        cost = (prompt + amount.written * o.completion_price) / 1e6
        batch = cost * (1 - o.batch_discount)
        cells = kept, f"{amount.read / 1e9:.2f} G", f"{cached / 1e9:.2f} G", f"{cost:,.0f}", f"{batch:,.0f}"
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def rates() -> str:
    """Describe the rates that follow from the published throughput."""
    descriptions = []
    for model in MODELS:
        read, written = (1 / seconds / model.gpus for seconds in model.seconds_per_token())
        descriptions.append(f"{model.name} {read:,.0f} tokens read and {written:,.0f} written")
    checks = " and ".join(f"{optimism(model):.1f}" for model in MODELS)
    return (
        f"Per H100 and second, solved from the published rows: {'; '.join(descriptions)}. For requests of "
        f"5,000 tokens read and 500 written that promises {checks} times what was published: long policies "
        "and replies take longer than the table says."
    )


def page(o: argparse.Namespace) -> str:
    """Format the assumptions and both tables."""
    shape = (
        f"**Estimate**, {o.pairs:,} pairs. Tokens of a request: {o.policy} policy and instruction, "
        f"{o.prompt} prompt, {o.response} response, {o.question} question, {o.reply} reply; "
        f"blocks of {o.block}; {o.conflicts:.0%} conflicts."
    )
    prices = (
        f"Prices are assumptions: ${o.gpu_price:g} for an H100-hour; hosted, for a million tokens, "
        f"${o.prompt_price:g} read, ${o.kept_price:g} kept, ${o.completion_price:g} written, "
        f"{o.batch_discount:.0%} off as a batch."
    )
    return "\n".join([shape, prices, "", rates(), "", *gpu_table(o), "", *api_table(o)])


def put(text: str, tables: str) -> str:
    """Return the page with the tables between its markers.

    Raises:
        ValueError: The page does not have exactly one pair of markers.
    """
    new, count = re.subn(f"{BEGIN}.*?{END}", lambda _: f"{BEGIN}\n{tables}\n{END}", text, flags=re.DOTALL)
    if count != 1:
        raise ValueError(f"{PAGE.name} has {count} pairs of the markers {BEGIN} and {END}, expected one.")
    return new


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the assumptions."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n", 1)[0])
    add = parser.add_argument
    add("--pairs", type=int, default=1_000_000)
    add("--policy", type=int, default=650, help="tokens of policy and instruction")
    add("--prompt", type=int, default=45)
    add("--response", type=int, default=95)
    add("--question", type=int, default=70, help="tokens after the response: how to answer")
    add("--reply", type=int, default=35, help="tokens that the model writes")
    add("--conflicts", type=float, default=0.3, help="share of pairs whose chosen response violates")
    add("--block", type=int, default=16, help="tokens that a server keeps together")
    add("--mfu", type=float, default=0.6, help="share of the peak that a prefill reaches")
    add("--gpu-price", type=float, default=3.0, help="$ for an H100-hour")
    add("--prompt-price", type=float, default=2.5, help="$ for a million prompt tokens")
    add("--kept-price", type=float, default=1.25, help="likewise, of those that the server has kept")
    add("--completion-price", type=float, default=10.0, help="$ for a million tokens of replies")
    add("--batch-discount", type=float, default=0.5)
    add("--write", action="store_true", help="put the tables into the page")
    return parser.parse_args(arguments)


def main() -> int:
    """Print the tables, or write them into the page."""
    options = parse(sys.argv[1:])
    if options.write:
        PAGE.write_text(put(PAGE.read_text(encoding="utf-8"), page(options)), encoding="utf-8")
    else:
        print(page(options))
    return 0


if __name__ == "__main__":
    sys.exit(main())
