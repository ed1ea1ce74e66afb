"""Readable features of a response: length, hedging, refusal, layout, style."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Feature:
    """One readable property of a response, counted by a pattern.

    Attributes:
        name: The feature's name in tables.
        more: The preference for a response that has more of it, as a sentence of a policy.
        less: The preference for a response that has less of it.
        pattern: A regular expression, case-insensitive; None counts words.
    """

    name: str
    more: str
    less: str
    pattern: str | None

    def measure(self, text: str) -> float:
        """Return ln(1 + the number of occurrences in the text), of words where there is no pattern.

        With a logarithm the tenth exclamation mark counts for less than the first, and twice the words are
        the same difference at any length.
        """
        if self.pattern is None:
            return math.log1p(len(text.split()))
        return math.log1p(sum(1 for _ in _compile(self.pattern).finditer(text)))


# Compiled once per pattern: each of them runs over every response.
_compiled: dict[str, re.Pattern[str]] = {}


def _compile(pattern: str) -> re.Pattern[str]:
    if pattern not in _compiled:
        _compiled[pattern] = re.compile(pattern, re.IGNORECASE)
    return _compiled[pattern]


# Not the phrases of `evaluation.refusals`. A feature is counted wherever it stands in a response, and is one
# short pattern that a reader of an inferred policy can check by eye. The detector of the evaluation asks
# whether an answer *begins* by refusing, with a dozen patterns and exclusions that were tested on answers.
REFUSAL = (
    r"\b(?:i(?:'m| am) (?:really |very |so )?sorry\b"
    r"|i (?:can(?:'|no)?t|cannot|won't|will not|must decline to) (?:\w+ )?"
    r"(?:help|assist|answer|comment|discuss|provide|give|support|condone|recommend|do|tell|advise)"
    r"|(?:i am|i'm) (?:not able|unable|not comfortable|not going) to\b|as an ai\b)"
)
"""A phrase that refuses the request."""

LENGTH = Feature("length", "The response is detailed and long.", "The response is short.", None)

FEATURES: tuple[Feature, ...] = (
    LENGTH,
    Feature(
        "hedging",
        "The response hedges: it says what is uncertain or depends on circumstances.",
        "The response does not hedge.",
        r"\b(?:it (?:really |all )?depends|depend(?:s|ing) on|may|might|could|perhaps|possibly|probably"
        r"|usually|generally|typically|tends? to|in (?:many|some|most) cases|not necessarily"
        r"|it is (?:possible|likely))\b",
    ),
    Feature(
        "certainty",
        "The response is certain of what it says.",
        "The response does not promise or claim certainty.",
        r"\b(?:definitely|certainly|absolutely|always|never|guarantee[ds]?|undoubtedly|of course|for sure"
        r"|clearly|obviously|no doubt)\b",
    ),
    Feature(
        "refusal",
        "The response declines what was asked.",
        "The response answers and does not decline.",
        REFUSAL,
    ),
    Feature(
        "directive",
        "The response tells the reader what to do.",
        "The response does not tell the reader what to do.",
        r"\byou(?:'d)? (?:should|must|ought to|need to|have to|had better)\b"
        r"|(?:^|[.!?]\s+)(?:just |simply |don't |do not |always |never )?"
        r"(?:ask|avoid|book|buy|call|check|get|give|go|keep|leave|let|make|move|pay|put|read|say|sell|send|start|stop|take|tell|try|turn|use|wait|write)\b",
    ),
    Feature(
        "referral",
        "The response refers the reader to a professional or a service.",
        "The response does not refer the reader to somebody else.",
        r"\b(?:doctor|gp|physician|pharmacist|nurse|therapist|lawyer|solicitor|attorney|accountant|advis[eo]rs?"
        r"|vet|professionals?|specialists?|experts?|helplines?|hotlines?|authorities|emergency services)\b",
    ),
    Feature(
        "disclaimer",
        "The response says that it is general information or not advice.",
        "The response carries no disclaimer.",
        r"\b(?:general (?:information|guidance|overview|background|advice|terms|picture)|not (?:\w+ )?advice"
        r"|for (?:informational|educational) purposes|i'm not (?:a|an|your) \w+)\b",
    ),
    Feature(
        "warning",
        "The response warns of harm, law or risk.",
        "The response does not warn.",
        r"\b(?:illegal|unlawful|against the law|dangerous|harmful|unethical|immoral|risk[sy]?|caution|careful"
        r"|warning|consequences|not (?:safe|acceptable|appropriate|okay|ok))\b",
    ),
    Feature(
        "politeness",
        "The response is polite and warm.",
        "The response comes without courtesies.",
        r"\b(?:please|thank(?:s| you)|welcome|happy to|glad to|hope (?:this|that|you)|sorry to hear"
        r"|feel free)\b",
    ),
    Feature(
        "first_person",
        "The response speaks of itself in the first person.",
        "The response does not speak of itself.",
        r"\b(?:i|i'm|i'd|i'll|i've|me|my|mine)\b",
    ),
    Feature("question", "The response asks a question.", "The response asks no question.", r"\?"),
    Feature(
        "exclamation", "The response uses exclamation marks.", "The response uses no exclamation mark.", "!"
    ),
    Feature(
        "list",
        "The response is laid out as a list.",
        "The response is prose, not a list.",
        r"(?m)^\s*(?:[-*•]|\d{1,2}[.)])\s+\S",
    ),
    Feature("heading", "The response has headings.", "The response has no headings.", r"(?m)^\s*#{1,6}\s+\S"),
    Feature(
        "bold", "The response sets words in bold.", "The response sets nothing in bold.", r"\*\*[^*\n]+\*\*"
    ),
    Feature("code", "The response has code in it.", "The response has no code in it.", r"```|`[^`\n]+`"),
    Feature("number", "The response gives numbers.", "The response gives no numbers.", r"\b\d[\d,.]*\b"),
    Feature(
        "link", "The response gives links.", "The response gives no links.", r"https?://|\bwww\.|\]\(\S+\)"
    ),
    Feature(
        "emoji",
        "The response uses emoji.",
        "The response uses no emoji.",
        r"[\U0001F300-\U0001FAFF\u2600-\u27BF\u2B50]",
    ),
)
"""All features, in the order of tables; every pattern is a few plain words or marks."""


def measure_features(texts: Sequence[str], features: Sequence[Feature] = FEATURES) -> npt.NDArray[np.float64]:
    """Measure every feature of every text.

    Args:
        texts: Responses, n of them.
        features: The features to measure, f of them.

    Returns:
        ln(1 + the number of occurrences), shape (n, f).
    """
    values = np.empty((len(texts), len(features)), dtype=np.float64)
    for row, text in enumerate(texts):
        values[row] = [feature.measure(text) for feature in features]
    return values


_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


def is_bare_refusal(text: str, *, substance: int = 25) -> bool:
    """Return whether a text opens with a refusal and says little else.

    Args:
        text: A response.
        substance: Number of words in sentences that do not refuse, from which on a refusal is not bare.
    """
    sentences = _SENTENCE_END.split(text.strip())
    refuses = [bool(_compile(REFUSAL).search(sentence)) for sentence in sentences]
    other_words = 0
    for sentence, is_refusal in zip(sentences, refuses, strict=True):
        if not is_refusal:
            other_words += len(sentence.split())
    return refuses[0] and other_words < substance


def trigram_overlap(text: str, other: str) -> float:
    """Return the share of a text's distinct word trigrams that also occur in another text.

    Args:
        text: The text whose trigrams are counted.
        other: The text that may contain them.

    Returns:
        1 for a copy, 0 where no three words in a row are the same (or the text has fewer than three).
    """
    trigrams = _ngrams(text, 3)
    other_trigrams = _ngrams(other, 3)
    return len(trigrams & other_trigrams) / len(trigrams) if trigrams else 0.0


def distinct_trigram_share(text: str) -> float:
    """Return distinct-3 (Li et al. 2016, arXiv:1510.03055): the share of word trigrams that are distinct.

    Args:
        text: A response.

    Returns:
        Distinct trigrams over all trigrams; 1 for a text of fewer than three words.
    """
    words = _split_words(text)
    total = len(words) - 2
    return len(_ngrams(text, 3)) / total if total > 0 else 1.0


def _split_words(text: str) -> list[str]:
    return re.findall(r"[\w']+", text.lower())


def _ngrams(text: str, n: int) -> set[tuple[str, ...]]:
    words = _split_words(text)
    return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}
