"""Principles without a language model: a sparse regression of choices on differences of readable features.

The choice between two responses is a logistic function of the difference of their features (Bradley & Terry
1952). An L1 penalty (Tibshirani 1996), whose strength is cross-validated, selects features; a feature is
kept where it is selected again in resampled pairs (stability selection: Meinshausen & Bühlmann 2010,
arXiv:0809.2932).
"""

import re
from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from realignment.infer_policy.regression import ChoiceRegression
from realignment.infer_policy.significance import FALSE_DISCOVERIES, adjust_p_values
from realignment.infer_policy.table import PRINCIPLE_COLUMNS, Explanation
from realignment.policy.text_features import FEATURES, LENGTH, Feature, measure_features
from realignment.records import DataError
from realignment.statistics import wilson_interval

Floats = npt.NDArray[np.float64]

MIN_PAIRS = 5
"""Pairs that a feature must tell apart to be a candidate."""


def explain_choices(
    pairs: pd.DataFrame,
    *,
    topic_words: int,
    folds: int,
    resamples: int,
    min_stability: float,
    min_support: float,
    seed: int,
) -> Explanation:
    """Find the features whose differences explain which response was chosen.

    A principle is kept where its coefficient has the same sign in a share `min_stability` of the bootstrap
    samples, where its false discovery rate given all stronger principles is at most `FALSE_DISCOVERIES`, and
    where by itself it predicts more than half of the choices between responses that it tells apart.

    Args:
        pairs: Columns prompt, chosen, rejected; n rows.
        topic_words: Frequent words that are features too, at most; 0: none.
        folds: Folds of the cross-validation, by prompt.
        resamples: Bootstrap samples of prompts.
        min_stability: In (0.5, 1].
        min_support: Share of pairs that a principle must tell apart, in [0, 1].
        seed: Seeds the orders, folds and samples.

    Returns:
        The principles, the largest coefficient first, and how well the regression predicts held-out choices.

    Raises:
        DataError: There are too few prompts for the cross-validation.
    """
    prompts = _count_prompts(pairs, folds)
    features, differences = measure_differences(pairs, topic_words)
    model = ChoiceRegression(differences, pairs["prompt"].to_numpy(), seed)
    strength, correct = model.cross_validate(folds)
    table = _tabulate(features, model, strength, resamples)
    kept = (table["stability"] >= min_stability) & (table["support"] >= min_support)
    kept &= (table["q_value"] <= FALSE_DISCOVERIES) & (table["agreement"] > 0.5)
    order = table[kept].sort_values("coefficient", key=np.abs, ascending=False, kind="stable")
    report = {
        "method": "features",
        "n": len(pairs),
        "prompts": prompts,
        "features": len(features),
        "strength": float(strength),
        "selected": len(table),
        "kept": int(kept.sum()),
        "accuracy": _share(correct),
        "longer_chosen": _share(_find_longer_chosen(pairs)),
    }
    return Explanation(order.reset_index(drop=True), report)


def _count_prompts(pairs: pd.DataFrame, folds: int) -> int:
    prompts = int(pairs["prompt"].nunique())
    if prompts < 4 * folds:
        raise DataError(
            f"Found pairs of {prompts} prompts; explaining choices takes at least {4 * folds} (four a fold). "
            "Give more pairs, or lower `principles.folds`."
        )
    return prompts


def measure_differences(pairs: pd.DataFrame, topic_words: int) -> tuple[tuple[Feature, ...], Floats]:
    """Measure how the responses of each pair differ.

    Args:
        pairs: Columns chosen, rejected; n rows.
        topic_words: Frequent words that are features too, at most.

    Returns:
        The f features that tell at least `MIN_PAIRS` pairs apart, and their chosen − rejected, shape (n, f).
    """
    features = (*FEATURES, *choose_topic_words(pairs, topic_words))
    chosen = measure_features(pairs["chosen"].tolist(), features)
    rejected = measure_features(pairs["rejected"].tolist(), features)
    differences = chosen - rejected
    used = np.flatnonzero((differences != 0).sum(axis=0) >= MIN_PAIRS)
    return tuple(features[i] for i in used), differences[:, used]


def _find_longer_chosen(pairs: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """Return whether the longer response was chosen: the simplest explanation, as a baseline.

    Returns:
        Shape (m,), for the m pairs whose responses differ in length.
    """
    chosen = measure_features(pairs["chosen"].tolist(), [LENGTH])[:, 0]
    rejected = measure_features(pairs["rejected"].tolist(), [LENGTH])[:, 0]
    differs = chosen != rejected
    return np.asarray(chosen[differs] > rejected[differs])


def choose_topic_words(pairs: pd.DataFrame, number: int) -> tuple[Feature, ...]:
    """Make features of the most frequent words of the responses.

    Args:
        pairs: Columns chosen, rejected.
        number: Words, at most.

    Returns:
        One feature per word that most pairs have in either response, without stop words and short words.
    """
    if not number:
        return ()
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    pair_counts: Counter[str] = Counter()
    for texts in zip(pairs["chosen"], pairs["rejected"], strict=True):
        words = set(re.findall(r"[a-z]{4,}", " ".join(texts).lower()))
        pair_counts.update(words - ENGLISH_STOP_WORDS)
    ranked = sorted(pair_counts, key=lambda word: (-pair_counts[word], word))[:number]
    return tuple(
        Feature(
            f"word_{word}",
            f"The response mentions “{word}”.",
            f"The response does not mention “{word}”.",
            rf"\b{word}\b",
        )
        for word in ranked
    )


def _tabulate(
    features: tuple[Feature, ...], model: ChoiceRegression, strength: float, resamples: int
) -> pd.DataFrame:
    """Build the table of all features with a coefficient other than 0."""
    coefficients = model.fit(strength, np.arange(len(model.differences)))
    resampled = model.resample(strength, resamples)  # shape (resamples, f)
    q_values = adjust_p_values(model.test(coefficients))
    rows = [
        _describe(features[i], model.differences[:, i], coefficients[i], resampled[:, i], q_values[i])
        for i in np.flatnonzero(coefficients)
    ]
    return pd.DataFrame(rows, columns=list(PRINCIPLE_COLUMNS))


def _describe(
    feature: Feature, differences: Floats, coefficient: float, resampled: Floats, q_value: float
) -> dict[str, Any]:
    """Build the row of a feature.

    Args:
        feature: The feature.
        differences: Chosen − rejected, shape (n,).
        coefficient: Its coefficient, not 0.
        resampled: Its coefficients in bootstrap samples, shape (resamples,).
        q_value: Its false discovery rate.

    Returns:
        PRINCIPLE_COLUMNS.
    """
    direction = "more" if coefficient > 0 else "less"
    applies = differences != 0
    n_applies = int(applies.sum())
    n_agrees = int((differences[applies] * coefficient > 0).sum())
    low, high = wilson_interval(n_agrees, n_applies)
    coefficient_low, coefficient_high = np.quantile(resampled, [0.025, 0.975])
    return {
        "id": f"{feature.name}-{direction}".replace("_", "-"),
        "principle": feature.more if coefficient > 0 else feature.less,
        "coefficient": float(coefficient),
        "coefficient_low": float(coefficient_low),
        "coefficient_high": float(coefficient_high),
        "stability": float((np.sign(resampled) == np.sign(coefficient)).mean()),
        "applies": n_applies,
        "pairs": len(differences),
        "support": float(applies.mean()),
        "agreement": n_agrees / n_applies,
        "low": low,
        "high": high,
        "q_value": float(q_value),
    }


def _share(correct: npt.NDArray[np.bool_]) -> dict[str, Any]:
    n = len(correct)
    if not n:
        return {"n": 0, "share": None, "interval": None}
    return {"n": n, "share": float(correct.mean()), "interval": [*wilson_interval(int(correct.sum()), n)]}
