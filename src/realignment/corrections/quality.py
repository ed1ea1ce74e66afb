"""The quality gate of corrections: flaws that no policy forbids, and that nobody wants to train on."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from realignment.policy.text_features import distinct_trigram_share, is_bare_refusal, trigram_overlap

REFERENCES = 500
"""Other contexts that a candidate is compared with, at most: enough to estimate a share, and a cost that
grows linearly with the pairs."""


class Flaw(StrEnum):
    """Why a candidate does not pass."""

    EMPTY = "empty"
    CUT_OFF = "cut off"
    SHORT = "too short"
    LONG = "too long"
    REPETITIVE = "repeats itself"
    REFUSAL = "bare refusal"
    OFF_TOPIC = "off topic"
    COPY = "copies a violating response"


@dataclass(frozen=True, slots=True)
class QualityGate:
    """The limits that a candidate must keep.

    Attributes:
        min_words: Fewest words.
        max_words: Most words.
        min_topic: Lowest `topic_shares`.
        max_copied: Largest share of word trigrams that also occur in one of the pair's violating responses.
        min_distinct: Lowest share of distinct word trigrams (distinct-3).
        allow_refusal: Whether a bare refusal may pass, because the policy asks for one.
    """

    min_words: int
    max_words: int
    min_topic: float
    max_copied: float
    min_distinct: float
    allow_refusal: bool

    def find_flaws(self, response: str, *, complete: bool, topic: float, copied: float) -> list[Flaw]:
        """Find every flaw of a candidate.

        Args:
            response: The candidate's text.
            complete: Whether it ended by itself and was not cut off at a limit.
            topic: Its `topic_shares`; NaN, where the topic cannot be measured, is no flaw.
            copied: The share of its word trigrams that a violating response has too.

        Returns:
            Flaws in the order of `Flaw`; empty where the candidate passes.
        """
        words = len(response.split())
        if not words:
            return [Flaw.EMPTY]
        is_present = {
            Flaw.CUT_OFF: not complete,
            Flaw.SHORT: words < self.min_words,
            Flaw.LONG: words > self.max_words,
            Flaw.REPETITIVE: distinct_trigram_share(response) < self.min_distinct,
            Flaw.REFUSAL: not self.allow_refusal and is_bare_refusal(response),
            Flaw.OFF_TOPIC: topic < self.min_topic,
            Flaw.COPY: copied > self.max_copied,
        }
        return [flaw for flaw, present in is_present.items() if present]


def assess_quality(
    candidates: pd.DataFrame, pairs: pd.DataFrame, gate: QualityGate, *, seed: int
) -> pd.DataFrame:
    """Measure every candidate and name its flaws.

    Args:
        candidates: Columns pair_id, response, complete; n rows.
        pairs: The PUNISH pairs: both of their responses violate.
        gate: The limits that candidates must keep.
        seed: Seeds the sample of contexts that candidates are compared with.

    Returns:
        The candidates with columns words, topic, copied, distinct, flaws (separated by commas; none: passes).
    """
    # One row per candidate: the pair that it belongs to.
    own_pairs = pairs.set_index("pair_id").loc[candidates["pair_id"]]
    texts = candidates["response"].tolist()
    other_contexts = _build_contexts(pairs.drop_duplicates("prompt"))
    topics = topic_shares(texts, _build_contexts(own_pairs), other_contexts, seed=seed)
    copied = [
        max(trigram_overlap(text, chosen), trigram_overlap(text, rejected))
        for text, chosen, rejected in zip(texts, own_pairs["chosen"], own_pairs["rejected"], strict=True)
    ]
    flaws = []
    for text, complete, topic, share in zip(texts, candidates["complete"], topics, copied, strict=True):
        candidate_flaws = gate.find_flaws(text, complete=bool(complete), topic=topic, copied=share)
        flaws.append(",".join(candidate_flaws))
    return candidates.assign(
        words=[float(len(text.split())) for text in texts],
        topic=topics,
        copied=np.array(copied, dtype=float),
        distinct=np.array([distinct_trigram_share(text) for text in texts], dtype=float),
        flaws=pd.Series(flaws, index=candidates.index, dtype="str"),
    )


def _build_contexts(pairs: pd.DataFrame) -> list[str]:
    """Join each pair's prompt with both of its responses, which violate but are on topic."""
    texts = zip(pairs["prompt"], pairs["chosen"], pairs["rejected"], strict=True)
    return [" ".join(pair_texts) for pair_texts in texts]


def topic_shares(
    texts: Sequence[str], contexts: Sequence[str], others: Sequence[str], *, seed: int
) -> npt.NDArray[np.float64]:
    """Measure how often a text is more similar to its own context than to another: 1 if it always is.

    Similarity is the cosine of TF-IDF over groups of 3 to 5 characters within words: no list of stop words,
    no stemmer, no language. A share among other contexts needs no threshold on a cosine, which depends on the
    data.

    Args:
        texts: The texts to measure, n of them.
        contexts: The context of each text.
        others: Contexts to compare with; at most `REFERENCES` of them are drawn.
        seed: Seeds that draw.

    Returns:
        Shares of other contexts, shape (n,); a tie counts half; NaN where there is no other context.
    """
    if not texts:
        return np.empty(0)
    from sklearn.feature_extraction.text import TfidfVectorizer

    rng = np.random.default_rng(seed)
    references = [others[i] for i in sorted(rng.permutation(len(others))[:REFERENCES])]  # r of them
    vectorizer = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), sublinear_tf=True)
    # Sparse and of unit length, so that products are cosines; r rows, then n and n.
    reference_vectors: Any = vectorizer.fit_transform([*references, *contexts])[: len(references)]
    text_vectors = vectorizer.transform(texts)
    context_vectors = vectorizer.transform(contexts)
    to_own = np.asarray(text_vectors.multiply(context_vectors).sum(axis=1)).ravel()  # (n,)
    to_others = (text_vectors @ reference_vectors.T).toarray()  # (n, r)
    # A reference may be the text's own context, which must not compete with itself.
    is_other = np.array(
        [[reference != context for reference in references] for context in contexts], dtype=bool
    )  # (n, r)
    margins = to_own[:, None] - to_others
    # Equal up to rounding counts half, as in an AUC.
    wins = np.where(np.abs(margins) < 1e-12, 0.5, margins > 0) * is_other
    comparisons = is_other.sum(axis=1)
    shares = np.full(len(texts), np.nan)
    return np.asarray(np.divide(wins.sum(axis=1), comparisons, out=shares, where=comparisons > 0))
