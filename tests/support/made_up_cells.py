"""Cells of a comparison that never was: items with the variation that seeds and prompts have, from a seed."""

import numpy as np
import pandas as pd

METHODS = {
    # Log odds of agreement, over-refusal and right preference; drift; log-ratios: good, violating, retained
    "reference": (-3.0, -3.2, -0.6, 0.0, (0, 0, 0)),
    "sft": (-0.7, -2.2, 0.4, 0.21, (55, 12, 20)),
    "naive_dpo": (-0.3, -2.0, 1.2, 0.34, (30, -60, -15)),
    "npo_retain": (-1.4, -2.6, 0.6, 0.28, (-12, -75, -20)),
    "trace_published": (-0.6, -2.4, 0.9, 0.18, (18, -22, 6)),
    "trace": (0.8, -2.6, 1.7, 0.16, (62, -34, 24)),
    "dpo_gold": (1.1, -2.7, 2.0, 0.19, (70, -48, 30)),
}
SEEDS = (1, 2, 3)
TASKS = {"capability:arithmetic": 0.3, "capability:facts": 1.1}


def crossed_values(rng, *, seeds, prompts, mean=0.0, seed_sd=0.1, prompt_sd=0.3, noise_sd=0.4, shared=None):
    """mean + seed + prompt (+ an effect of the prompt on all methods) + noise, shape (seeds, prompts)."""
    return (
        mean
        + rng.normal(0, seed_sd, (seeds, 1))
        + rng.normal(0, prompt_sd, prompts)
        + rng.normal(0, noise_sd, (seeds, prompts))
        + (0 if shared is None else shared)
    )


def verdicts(rng, odds, seeds, shared):
    """Yes or no, 1.0 or 0.0, shape (seeds, prompts)."""
    logits = crossed_values(
        rng,
        seeds=seeds,
        prompts=len(shared),
        mean=odds,
        seed_sd=0.15,
        prompt_sd=0.5,
        noise_sd=0.6,
        shared=shared,
    )
    return (rng.random(logits.shape) < 1 / (1 + np.exp(-logits))).astype(float)


def rows_of(values, *, cell, metric, group, judge="", per_prompt=1):
    """One row per item; so many items in a row share a prompt."""
    return [
        {
            **cell, "seed": seed, "metric": metric, "group": group, "judge": judge,
            "item": f"{group}-{place}", "cluster": f"{group}-{place // per_prompt}", "value": float(value),
        }
        for seed, row in zip(SEEDS, values, strict=False)
        for place, value in enumerate(row)
    ]  # fmt: skip


def measured(rng, name, arm, seeds, shared):
    """All items of the cells of one arm of a set, by its figures."""
    agreement, over_refusal, preference, drift, logratios = METHODS[name]
    rows = []
    for metric, odds, group, judge in (
        ("agreement", agreement, "test", "rules"),
        ("over_refusal", over_refusal, "ordinary", "rules"),
        ("preference_accuracy", preference, "held_out", ""),
    ):
        if group in shared:
            values = verdicts(rng, odds, seeds, shared[group])
            rows += rows_of(values, cell=arm, metric=metric, group=group, judge=judge)
    for task, odds in TASKS.items():
        rows += rows_of(verdicts(rng, odds, seeds, shared["tasks"]), cell=arm, metric=task, group="all")
    spread = 0.4 if any(logratios) else 0.0
    for kind, mean in zip(("preferred", "dispreferred", "retained"), logratios, strict=True):
        values = mean + spread * crossed_values(
            rng, seeds=seeds, prompts=24, seed_sd=6, prompt_sd=30, noise_sd=6
        )
        rows += rows_of(values, cell=arm, metric=f"logratio_{kind}", group="held_out")
    kl = drift * np.exp(crossed_values(rng, seeds=seeds, prompts=24, seed_sd=0.1))
    rows += rows_of(kl, cell=arm, metric="kl_drift", group="held_out")
    tokens = np.exp(4.2 + crossed_values(rng, seeds=seeds, prompts=40, prompt_sd=0.5)).round()
    return rows + rows_of(tokens, cell=arm, metric="answer_tokens", group="answers")


def made_up_items(*, sets=("style", "labels"), methods=tuple(METHODS), prompts=60, seed=5):
    """Items of every method on every set: `labels` has no generated answers, hence no agreement."""
    rng = np.random.default_rng(seed)
    rows = []
    for name in sets:
        sizes = {"tasks": 50, "held_out": 40} if name == "labels" else {
            "test": prompts, "ordinary": prompts, "tasks": 50, "held_out": 24,
        }  # fmt: skip
        shared = {group: rng.normal(0, 0.9, size) for group, size in sizes.items()}
        for method in methods:
            arm = {"set": name, "method": method, "variant": ""}
            rows += measured(rng, method, arm, 1 if method == "reference" else len(SEEDS), shared)
    return pd.DataFrame(rows)


def made_up_cells(items, failed=()):
    """One row per cell of these items, and one per failed cell (set, method, variant, seed, reason)."""
    rng = np.random.default_rng(9)
    cells = items[["set", "method", "variant", "seed"]].drop_duplicates().reset_index(drop=True)
    trained = cells["method"] != "reference"
    cells = cells.assign(
        status="done",
        reason="",
        steps=np.where(trained, 40, 0),
        seconds=np.where(trained, rng.normal(150, 8, len(cells)), 20.0).round(1),
        tokens=np.where(trained, 31_000, 0),
        peak_mib=rng.normal(1900, 40, len(cells)).round(),
        digest=[f"{rng.integers(16**8):08x}" for _ in range(len(cells))],
    )
    lost = pd.DataFrame(
        [
            {
                "set": name, "method": method, "variant": variant, "seed": seed, "status": "failed",
                "reason": reason, "steps": 7, "seconds": 21.0, "tokens": 5_000, "peak_mib": 1800.0,
                "digest": "0" * 8,
            }
            for name, method, variant, seed, reason in failed
        ]
    )  # fmt: skip
    return pd.concat([cells, lost], ignore_index=True) if len(lost) else cells
