"""The quality gate of corrections: what no oracle of a policy looks at, and nobody wants to train on."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import compress
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from realignment.policy.text_features import distinct_trigrams, is_bare_refusal, share_of_trigrams_in

REFERENCES = 500
"""Other contexts that a candidate is compared with, at most: enough for a share, and linear in the pairs."""


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
class Gate:
    """What a candidate must be like.

    Attributes:
        min_words: Shorter ones are flawed.
        max_words: Longer ones are.
        min_topic: Least `topic_shares`.
        max_copied: Largest share of word triples that one of the pair's violating responses has too.
        min_distinct: Least share of distinct word triples (distinct-3).
        allow_refusal: Whether a bare refusal may pass, because the policy asks for one.
    """

    min_words: int
    max_words: int
    min_topic: float
    max_copied: float
    min_distinct: float
    allow_refusal: bool

    def flaws(self, response: str, *, complete: bool, topic: float, copied: float) -> list[Flaw]:
        """Every flaw of one candidate; a topic that cannot be told (NaN) is none."""
        words = len(response.split())
        if not words:
            return [Flaw.EMPTY]
        found = {
            Flaw.CUT_OFF: not complete,
            Flaw.SHORT: words < self.min_words,
            Flaw.LONG: words > self.max_words,
            Flaw.REPETITIVE: distinct_trigrams(response) < self.min_distinct,
            Flaw.REFUSAL: not self.allow_refusal and is_bare_refusal(response),
            Flaw.OFF_TOPIC: topic < self.min_topic,
            Flaw.COPY: copied > self.max_copied,
        }
        return list(compress(found, found.values()))


def assess(candidates: pd.DataFrame, pairs: pd.DataFrame, gate: Gate, *, seed: int) -> pd.DataFrame:
    """Measure every candidate and name its flaws.

    Args:
        candidates: Columns pair_id, response, complete.
        pairs: The PUNISH pairs: both of their responses violate.
        gate: What must hold.
        seed: Of the draw of the contexts that candidates are compared with.

    Returns:
        The candidates with columns words, topic, copied, distinct, flaws (separated by commas; none: passes).
    """
    keyed = pairs.set_index("pair_id").loc[candidates["pair_id"]]
    texts = candidates["response"].tolist()
    topics = topic_shares(texts, _contexts(keyed), _contexts(pairs.drop_duplicates("prompt")), seed=seed)
    violating = zip(keyed["chosen"], keyed["rejected"], strict=True)
    copied = [
        max(share_of_trigrams_in(text, bad) for bad in both)
        for text, both in zip(texts, violating, strict=True)
    ]
    flaws = [
        gate.flaws(text, complete=bool(complete), topic=topic, copied=copy)
        for text, complete, topic, copy in zip(texts, candidates["complete"], topics, copied, strict=True)
    ]
    return candidates.assign(
        words=[float(len(text.split())) for text in texts],
        topic=topics,
        copied=np.array(copied, dtype=float),
        distinct=np.array([distinct_trigrams(text) for text in texts], dtype=float),
        flaws=pd.Series([",".join(found) for found in flaws], index=candidates.index, dtype="str"),
    )


def _contexts(pairs: pd.DataFrame) -> list[str]:
    """What a pair is about: its prompt and both of its responses, which violate but are on topic."""
    return [
        " ".join(parts) for parts in zip(pairs["prompt"], pairs["chosen"], pairs["rejected"], strict=True)
    ]


def topic_shares(
    texts: Sequence[str], contexts: Sequence[str], others: Sequence[str], *, seed: int
) -> npt.NDArray[np.float64]:
    """Share of other contexts that a text is less like than its own: 1 where its own is the nearest.

    Likeness is the cosine of TF-IDF over groups of 3 to 5 characters within words: no list of stop words,
    no stemmer, no language. A share among other contexts needs no threshold on a cosine, which depends on the
    data.

    Args:
        texts: To be placed.
        contexts: The context of each text.
        others: Contexts to compare with; at most `REFERENCES` of them are drawn.
        seed: Of that draw.

    Returns:
        Shape (texts,); a tie counts half; NaN where there is no other context.
    """
    if not texts:
        return np.empty(0)
    from sklearn.feature_extraction.text import TfidfVectorizer

    rng = np.random.default_rng(seed)
    drawn = [others[i] for i in sorted(rng.permutation(len(others))[:REFERENCES])]
    vectorizer = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), sublinear_tf=True)
    references: Any = vectorizer.fit_transform([*drawn, *contexts])[: len(drawn)]
    vectors, own = vectorizer.transform(texts), vectorizer.transform(contexts)
    to_own = np.asarray(vectors.multiply(own).sum(axis=1)).ravel()
    to_others = (vectors @ references.T).toarray()
    is_other = np.array([[other != context for other in drawn] for context in contexts], dtype=bool)
    difference = to_own[:, None] - to_others
    wins = np.where(np.abs(difference) < 1e-12, 0.5, difference > 0) * is_other
    number = is_other.sum(axis=1)
    unknown = np.full(len(texts), np.nan)
    return np.asarray(np.divide(wins.sum(axis=1), number, out=unknown, where=number > 0))
