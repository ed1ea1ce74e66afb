"""Keep some prompts from the training on the old labels, to measure what it has taught."""

import math

import numpy as np
import pandas as pd

from realignment.records import DataError


def hold_out_prompts(pairs: pd.DataFrame, *, share: float, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Divide pairs by prompt into those to train on and those that are held out.

    Args:
        pairs: Cleaned pairs.
        share: Share of the prompts that is held out, rounded up, in [0, 1).
        seed: Of the draw.

    Returns:
        Pairs to train on and held-out pairs, each in the order of the input; they share no prompt.

    Raises:
        DataError: Nothing is left to train on.
    """
    prompts = pairs["prompt"].drop_duplicates()
    count = math.ceil(share * len(prompts))
    drawn = np.random.default_rng(seed).permutation(len(prompts))[:count]
    is_held_out = pairs["prompt"].isin(prompts.iloc[drawn])
    if is_held_out.all():
        raise DataError(
            f"{len(pairs)} pairs of {len(prompts)} prompts, {count} of these held out, leave no pair to "
            "train on. Give more pairs, or lower `align.held_out_share` (0: none is held out, and it is not "
            "measured what was learnt)."
        )
    return pairs[~is_held_out].reset_index(drop=True), pairs[is_held_out].reset_index(drop=True)
