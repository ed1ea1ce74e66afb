"""Greedy answers, against batches that wait for their longest: `python benchmarks/answers.py [--json FILE]`.

The peer is transformers' `generate` on batches of prompts sorted by length, as this project had it before.
Ours reads what all prompts begin with once, lets rows that have ended leave the batch, and does not copy
earlier keys and values with every token. The model is the base model of the sample (`--model`: any folder),
the prompts are the sample's development prompts; with `--quick` both are random. Compared are the tokens.
"""

import json
import random
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cases
import torch
from harness import Claim, Result, Row, alternate, evaluate_claims, parse_options, report
from transformers import AutoModelForCausalLM, AutoTokenizer

from realignment.likelihood.tokenization import chat_messages, prompt_text
from realignment.model import decoding

OURS, PEER = "rows leave and join", "batches wait"
PROMPTS = cases.ROOT / "data/01_raw/sample/prompts.jsonl"


@torch.inference_mode()
def answer_in_batches(
    model: Any, prompts: Sequence[list[int]], *, ends: list[int], limit: int, batch_size: int
) -> Result:
    """Answer by `generate`, batch by batch: the peer."""
    answers: list[torch.Tensor] = []
    for start in range(0, len(prompts), batch_size):
        batch = prompts[start : start + batch_size]
        width = max(map(len, batch))
        tokens = torch.tensor([[ends[0]] * (width - len(prompt)) + prompt for prompt in batch])
        is_token = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in batch])
        output = model.generate(
            input_ids=tokens,
            attention_mask=is_token,
            max_new_tokens=limit,
            eos_token_id=ends,
            pad_token_id=ends[0],
            use_cache=True,
            do_sample=False,
            temperature=None,
            top_p=None,
            top_k=None,
        )
        answers += [cut_at_end(row, ends) for row in output[:, width:]]
    return {"tokens": answers}


def cut_at_end(tokens: torch.Tensor, ends: list[int]) -> torch.Tensor:
    """Return the tokens to the first end token, itself included."""
    found = torch.isin(tokens, torch.tensor(ends)).nonzero()
    return tokens[: int(found[0]) + 1] if len(found) else tokens


@torch.inference_mode()
def answer_together(
    model: Any, prompts: Sequence[list[int]], *, ends: list[int], limit: int, batch_size: int
) -> Result:
    """Answer by this project's decoding."""
    rows = [decoding.Row(prompt) for prompt in prompts]
    decoding.decode(
        model,
        rows,
        lambda logits, _: logits.argmax(dim=-1),
        end_tokens=ends,
        pad_token=ends[0],
        max_new_tokens=limit,
        batch_size=batch_size,
    )
    return {"tokens": [torch.tensor(row.tokens) for row in rows]}


def load_base_model(folder: Path, count: int) -> tuple[Any, list[list[int]], list[int]]:
    """Return the model in float32, the first prompts as tokens, and the end tokens."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    lines = PROMPTS.read_text(encoding="utf-8").splitlines()
    kept = [row["prompt"] for row in map(json.loads, lines) if row["split"] == "development"]
    texts = [prompt_text(tokenizer, chat_messages(prompt)) for prompt in kept[:count]]
    return model, tokenizer(texts, add_special_tokens=False)["input_ids"], [tokenizer.eos_token_id]


def make_tiny_case(count: int) -> tuple[Any, list[list[int]], list[int]]:
    """Return a random model, random prompts that begin alike, and a tenth of the vocabulary as ends."""
    model = cases.random_model("tiny", attention="sdpa")
    draw = random.Random(0)
    head = [draw.randrange(3, 512) for _ in range(20)]
    prompts = [head + [draw.randrange(3, 512) for _ in range(draw.randint(5, 30))] for _ in range(count)]
    return model, prompts, list(range(3, 512, 10))


def main() -> int:
    """Parse the options, measure, and report the rows."""
    options = parse_options(
        __doc__,
        model={"type": Path, "help": "folder of the model; else the sample's base model"},
        prompts={"type": int, "default": 48, "help": "how many"},
        batch={"type": int, "default": 48, "help": "answers in work at a time"},
        limits={"type": int, "nargs": "+", "default": [80, 256], "help": "tokens at which answers are cut"},
    )
    if options.quick:
        model, prompts, ends = make_tiny_case(12)
        options.batch, options.limits = 4, [30]
    else:
        folder = options.model or sorted(cases.BASE_MODELS.glob("*/config.json"))[0].parent
        model, prompts, ends = load_base_model(folder, options.prompts)
    prompts.sort(key=len)
    rows: dict[str, Row] = {}
    for limit in options.limits:
        settings = {"ends": ends, "limit": limit, "batch_size": options.batch}
        calls = {
            PEER: partial(answer_in_batches, model, prompts, **settings),
            OURS: partial(answer_together, model, prompts, **settings),
        }
        seconds, results = alternate(calls, rounds=options.rounds)
        n_tokens = sum(len(tokens) for tokens in results[OURS]["tokens"])
        name = f"{len(prompts)} answers / at most {limit} tokens ({n_tokens} in all)"
        rows |= evaluate_claims([Claim(name, PEER, OURS, 1.0, {"tokens": 0.0})], seconds, results)
    return report(rows, options)


if __name__ == "__main__":
    sys.exit(main())
