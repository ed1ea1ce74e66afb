"""What a response looks like, in numbers that people can read: length, hedging, refusal, form, manner."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Feature:
    """One readable property of a response.

    Attributes:
        name: Names it in tables.
        more: The preference for a response that has more of it, as a sentence of a policy.
        less: The preference for a response that has less of it.
        pattern: What counts as an occurrence (case does not matter); None for the number of words.
    """

    name: str
    more: str
    less: str
    pattern: str | None

    def measure(self, text: str) -> float:
        """The natural logarithm of one plus the number of occurrences (of words, where there is no pattern).

        A logarithm, so that the tenth exclamation mark says less than the first, and twice the words are
        the same difference at any length.
        """
        if self.pattern is None:
            return math.log1p(len(text.split()))
        return math.log1p(sum(1 for _ in _compile(self.pattern).finditer(text)))


_compiled: dict[str, re.Pattern[str]] = {}


def _compile(pattern: str) -> re.Pattern[str]:
    if pattern not in _compiled:
        _compiled[pattern] = re.compile(pattern, re.IGNORECASE)
    return _compiled[pattern]


REFUSAL = (
    r"\b(?:i(?:'m| am) (?:really |very |so )?sorry\b"
    r"|i (?:can(?:'|no)?t|cannot|won't|will not|must decline to) (?:\w+ )?"
    r"(?:help|assist|answer|comment|discuss|provide|give|support|condone|recommend|do|tell|advise)"
    r"|(?:i am|i'm) (?:not able|unable|not comfortable|not going) to\b|as an ai\b)"
)
"""A phrase that declines."""

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
"""In the order of tables; every pattern is a few plain words or marks."""


def measure(texts: Sequence[str], features: Sequence[Feature] = FEATURES) -> npt.NDArray[np.float64]:
    """Every feature of every text, shape (texts, features)."""
    table = [[feature.measure(text) for feature in features] for text in texts]
    return np.array(table, dtype=np.float64).reshape(len(texts), len(features))


_SENTENCE = re.compile(r"(?<=[.!?])\s+")


def is_bare_refusal(text: str, *, substance: int = 25) -> bool:
    """Whether a text opens by declining, and has fewer than `substance` words in sentences that do not."""
    sentences = _SENTENCE.split(text.strip())
    declines: list[bool] = [bool(_compile(REFUSAL).search(sentence)) for sentence in sentences]
    rest = sum(len(s.split()) for s, declined in zip(sentences, declines, strict=True) if not declined)
    return declines[0] and rest < substance


def share_of_trigrams_in(text: str, other: str) -> float:
    """Share of a text's distinct word triples that another text has too: 1 for a copy, 0 for new words."""
    ours, theirs = _ngrams(text, 3), _ngrams(other, 3)
    return len(ours & theirs) / len(ours) if ours else 0.0


def distinct_trigrams(text: str) -> float:
    """distinct-3 (Li et al. 2016, arXiv:1510.03055): distinct word triples over all; 1 if there is none."""
    words = _words(text)
    number = len(words) - 2
    return len(_ngrams(text, 3)) / number if number > 0 else 1.0


def _words(text: str) -> list[str]:
    return re.findall(r"[\w']+", text.lower())


def _ngrams(text: str, n: int) -> set[tuple[str, ...]]:
    words = _words(text)
    return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}
