"""Check that no evaluation prompt is in the training data, word for word or nearly so."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from realignment.records import DataError

MAX_SIMILARITY = 0.48
"""Cosine of two prompts' sets of character 3- to 5-grams above which one counts as a copy of the other.

On the sample, prompts about one situation in other words begin at 0.49, other prompts reach 0.46. The cosine
depends on the two texts alone, not on the rest of the data."""

_FEATURES = 2**20
"""Buckets that n-grams are hashed into: a prompt of 200 characters has some 500 of them."""

_BLOCK = 256
"""Evaluation prompts that are compared at once: bounds the memory against a large training set."""

_LISTED = 5


@dataclass(frozen=True, slots=True)
class Leak:
    """An evaluation prompt that is too close to a prompt of the training data.

    Attributes:
        prompt: Position among the evaluation prompts.
        source: Position among the training prompts of the closest one.
        similarity: Their cosine, in [0, 1]; 1 where the normalised texts are the same.
    """

    prompt: int
    source: int
    similarity: float


def normalise(text: str) -> str:
    """Return a text without what does not matter for being a copy: case, accents, punctuation, spacing."""
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    letters = "".join(character for character in decomposed if not unicodedata.combining(character))
    return " ".join(re.findall(r"\w+", letters))


def find_leaks(
    prompts: Sequence[str], sources: Sequence[str], *, max_similarity: float = MAX_SIMILARITY
) -> list[Leak]:
    """Find evaluation prompts that are copies or near copies of training prompts.

    Args:
        prompts: Evaluation prompts.
        sources: Prompts of training, gold and held-out pairs.
        max_similarity: Cosine above which a prompt counts as a near copy, in [0, 1].

    Returns:
        One leak per offending prompt, with its closest source, in the order of the prompts.
    """
    from sklearn.feature_extraction.text import HashingVectorizer  # slow to import

    if not prompts or not sources:
        return []
    normal_prompts = [normalise(text) for text in prompts]
    normal_sources = [normalise(text) for text in sources]
    first_at: dict[str, int] = {}
    for position, text in enumerate(normal_sources):
        first_at.setdefault(text, position)
    vectorizer = HashingVectorizer(
        analyzer="char_wb", ngram_range=(3, 5), binary=True, alternate_sign=False, n_features=_FEATURES
    )
    of_sources = vectorizer.transform(normal_sources).T.tocsr()  # unit columns, shape (features, sources)
    of_prompts = vectorizer.transform(normal_prompts)  # unit rows, shape (prompts, features)
    leaks: list[Leak] = []
    for start in range(0, len(prompts), _BLOCK):
        cosines = of_prompts[start : start + _BLOCK] @ of_sources  # sparse, shape (block, sources)
        closest = np.asarray(cosines.argmax(axis=1)).ravel()
        highest = np.asarray(cosines.max(axis=1).todense()).ravel()
        for offset in range(len(closest)):
            place = start + offset
            if normal_prompts[place] in first_at:
                leaks.append(Leak(place, first_at[normal_prompts[place]], 1.0))
            elif highest[offset] > max_similarity:
                leaks.append(Leak(place, int(closest[offset]), float(highest[offset])))
    return leaks


def check_contamination(
    prompt_ids: Sequence[str],
    prompts: Sequence[str],
    source_ids: Sequence[str],
    sources: Sequence[str],
    *,
    max_similarity: float = MAX_SIMILARITY,
    kind: str = "evaluation prompts",
    origin: str = "`evaluation_prompts`",
) -> None:
    """Refuse to evaluate on prompts that the model was, or may have been, trained on.

    Args:
        prompt_ids: Ids of the evaluation prompts.
        prompts: The evaluation prompts.
        source_ids: Ids of the pairs that are trained on, in the gold batch or held out.
        sources: The prompts of those pairs.
        max_similarity: See `find_leaks`.
        kind: What the prompts are called, for the message.
        origin: Where they can be removed from, for the message.

    Raises:
        DataError: With the first offending prompts and the pairs that they are close to.
    """
    leaks = find_leaks(prompts, sources, max_similarity=max_similarity)
    if leaks:
        worst = sorted(leaks, key=lambda leak: -leak.similarity)[:_LISTED]
        listed = [
            f"{prompt_ids[leak.prompt]} ~ pair {source_ids[leak.source]} (similarity {leak.similarity:.2f})"
            for leak in worst
        ]
        more = f", and {len(leaks) - len(worst)} more" if len(leaks) > len(worst) else ""
        raise DataError(
            f"{len(leaks)} of {len(prompts)} {kind} are in the pairs or nearly so (limit: "
            f"similarity {max_similarity:g}): {'; '.join(listed)}{more}. A figure on them would measure "
            f"memory. Remove them from {origin} or from the pairs, or set "
            "`evaluation.max_prompt_similarity: 1` to refuse exact copies only."
        )
