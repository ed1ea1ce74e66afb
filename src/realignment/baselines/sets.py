"""What all methods are compared on: pairs to draw from, held-out pairs, and prompts to answer."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from realignment.evaluation import answers
from realignment.gold.batch import partition_pairs
from realignment.parameters import EvaluationParameters, GoldParameters, SetParameters
from realignment.records import DataError, Disposition
from realignment.triage import decide_disposition

SPLITS = ("development", "test")


@dataclass(frozen=True)
class ComparisonSet:
    """One set, the same for all methods and seeds.

    Attributes:
        name: The set's.
        pool: Pairs from which a training draws.
        held_out: Pairs of other prompts, to score.
        prompts: Prompts to answer: prompt_id, prompt, messages, domain, kind.
    """

    name: str
    pool: pd.DataFrame
    held_out: pd.DataFrame
    prompts: pd.DataFrame


def build_set(
    triaged: pd.DataFrame,
    evaluation_prompts: pd.DataFrame,
    parameters: SetParameters,
    evaluation: EvaluationParameters,
) -> ComparisonSet:
    """Set prompts aside, half of them for development and half for the test, and take the half asked for.

    Args:
        triaged: INVERT, PUNISH and RETAIN pairs.
        evaluation_prompts: PROMPT_COLUMNS of `evaluation.answers`; may be empty.
        parameters: Sizes, split and source of the prompts.
        evaluation: Its `max_prompt_similarity` counts for prompts from a file.

    Returns:
        The set. The other half of the held-out prompts is in no part of it.

    Raises:
        DataError: No prompts of the split, or too few pairs.
    """
    parts = partition_pairs(
        triaged,
        held_out_share=parameters.held_out_share,
        gold_size=0,
        composition="random",
        seed=parameters.split_seed,
    )
    held_out = _take_half(parts.held_out, parameters)
    if held_out.empty:
        raise DataError(
            f"No prompt of {triaged['prompt'].nunique()} is held out for the split `{parameters.split}`. "
            "Give more pairs, or raise `baselines.set.held_out_share`."
        )
    match parameters.prompts:
        case "file":
            selected = answers.select_prompts(
                evaluation_prompts,
                parts.training,
                split=parameters.split,
                max_similarity=evaluation.max_prompt_similarity,
            )
            prompts = _complete(selected)
        case "held_out":
            prompts = _complete(
                held_out.drop_duplicates("prompt")
                .rename(columns={"pair_id": "prompt_id"})
                .assign(kind="regulated")
            )
        case "none":
            prompts = _complete(pd.DataFrame(columns=["prompt_id", "prompt", "kind"]))
    return ComparisonSet(
        parameters.name,
        parts.training,
        _limit(held_out, parameters.held_out_pairs, by="disposition"),
        _limit(prompts, parameters.prompts_limit, by="kind"),
    )


def draw_training_parts(
    comparison: ComparisonSet, parameters: SetParameters, gold: GoldParameters, *, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Draw what one training gets: the same for every method with this seed.

    Args:
        comparison: The set.
        parameters: Number of pairs.
        gold: Size and composition of the gold batch. Methods without weights do not train on it either.
        seed: Of the draw.

    Returns:
        Gold batch and training pairs.
    """
    drawn = _limit(comparison.pool, parameters.training_pairs, by="disposition", seed=seed)
    if parameters.label_noise:
        drawn = turn_verdicts(drawn, share=parameters.label_noise, rng=np.random.default_rng(seed))
    parts = partition_pairs(
        drawn,
        held_out_share=0.0,
        gold_size=gold.size,
        composition=gold.composition,
        retained=gold.retained,
        punished=gold.punished,
        seed=seed,
    )
    return parts.gold, parts.training


def turn_verdicts(triaged: pd.DataFrame, *, share: float, rng: np.random.Generator) -> pd.DataFrame:
    """Turn verdicts round at random, and triage the pairs anew: an oracle that errs on this share.

    Args:
        triaged: Pairs with both verdicts.
        share: Of the verdicts, each chosen or rejected response's by itself.
        rng: Of the draw.

    Returns:
        The pairs with other verdicts and dispositions. Corrections stay: they were verified.
    """
    verdicts = triaged[["chosen_verdict", "rejected_verdict"]].to_numpy(bool)
    turned = verdicts ^ (rng.random(verdicts.shape) < share)
    chosen, rejected = turned[:, 0].tolist(), turned[:, 1].tolist()
    return triaged.assign(
        chosen_verdict=pd.array(chosen, dtype="boolean"),
        rejected_verdict=pd.array(rejected, dtype="boolean"),
        disposition=[str(decide_disposition(a, b)) for a, b in zip(chosen, rejected, strict=True)],
    )


def _take_half(held_out: pd.DataFrame, parameters: SetParameters) -> pd.DataFrame:
    """The pairs of every second prompt of each disposition, in an order that the split's seed gives."""
    prompts = held_out.drop_duplicates("prompt")
    shuffled = prompts.iloc[np.random.default_rng(parameters.split_seed).permutation(len(prompts))]
    half = shuffled.groupby("disposition").cumcount() % len(SPLITS) == SPLITS.index(parameters.split)
    return held_out[held_out["prompt"].isin(shuffled.loc[half, "prompt"])].reset_index(drop=True)


def _limit(table: pd.DataFrame, limit: int | None, *, by: str, seed: int = 0) -> pd.DataFrame:
    """At most `limit` rows, each group by its share, drawn by the seed and in the table's order."""
    if limit is None or len(table) <= limit:
        return table.reset_index(drop=True)
    shuffled = table.iloc[np.random.default_rng(seed).permutation(len(table))]
    # The k-th of n rows of a group has the rank (k + ½)/n: the lowest ranks have the groups' own shares.
    size = shuffled.groupby(by)[by].transform("size")
    rank = (shuffled.groupby(by).cumcount() + 0.5) / size
    return table.loc[sorted(rank.sort_values(kind="stable").index[:limit])].reset_index(drop=True)


def _complete(prompts: pd.DataFrame) -> pd.DataFrame:
    columns = ["prompt_id", "prompt", "messages", "domain", "kind"]
    table: Any = prompts.reindex(columns=columns).reset_index(drop=True)
    return table.astype({"messages": object, "domain": object})  # type: ignore[no-any-return]


def count_dispositions(pairs: pd.DataFrame) -> dict[str, int]:
    """Return the number of pairs by disposition."""
    return {str(d): int((pairs["disposition"] == d).sum()) for d in Disposition if d != Disposition.REVIEW}
