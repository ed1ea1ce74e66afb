"""The quick search finds what `re.IGNORECASE` finds, on any text and for any pattern."""

import re
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from realignment.policy import read_policy
from realignment.policy.checks import Patterns
from realignment.policy.fast_regex import Matcher, lower_pattern, lower_text

POLICIES = sorted((Path(__file__).parents[2] / "conf/base/policies").glob("*.yml"))


def patterns_of(policy):
    for rule in policy.rules:
        for part in (rule.check, rule.scope.prompt, rule.scope.except_prompt):
            if isinstance(part, Patterns):
                yield from part.patterns


SHIPPED = sorted({pattern for path in POLICIES for pattern in patterns_of(read_policy(path))})
WORDS = [
    "You", "should", "sell", "I", "can't", "GUARANTEE", "guaranteed", "no", "risk-free", "doctor", "GP",
    "A&E", "general", "information", "not", "advice", "lawyer", "the bank’s", "adviser", "999", "always",
    "wins", "Stop", "ſell", "Kelvin", "İ", "ı", "ß", "naïve", "“quoted”", "–", "\n", ".", ",", "!",
    "as background",
]  # fmt: skip
TEXTS = st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join)


def test_there_are_patterns_to_test():
    assert len(SHIPPED) >= 40
    assert sum(lower_pattern(pattern) is not None for pattern in SHIPPED) / len(SHIPPED) > 0.9


@settings(max_examples=200, deadline=None)
@given(TEXTS)
@example("you should SELL, guaranteed. As background information only, it is NOT advice; see a Doctor.")
def test_shipped_patterns_find_what_re_finds(text):
    for pattern in SHIPPED:
        expected = re.search(pattern, text, re.IGNORECASE) is not None
        assert Matcher(pattern).occurs_in(text, lower_text(text)) is expected, pattern


PIECES = st.sampled_from(
    ["a", "B", "k", "S", "i", "ab", "aBc", r"\b", r"\s", r"\W", r"\d", r"\S", ".", "[a-c]", "[^A-C]", "[A-z]",
     "[+-Z]", "[0-9]", r"\x41", r"\u212a", r"\.", "é", "’", "(?-i:A)", "(?P<N>A)", "(?:x|Yz)", "(?!b)",
     "(?<=A)", "(?<!s)", "^", "$", "K{2}", "a-b", r"[\w-]", r"\t"]
)  # fmt: skip
QUANTIFIERS = st.sampled_from(["", "", "", "?", "*", "+", "{2}", "{1,2}", "??"])


def grouped(inner):
    return st.lists(inner, min_size=1, max_size=3).map(lambda branches: f"(?:{'|'.join(branches)})")


MADE_UP = st.recursive(
    st.lists(st.tuples(PIECES, QUANTIFIERS).map("".join), min_size=1, max_size=5).map("".join),
    lambda inner: st.tuples(grouped(inner), QUANTIFIERS, inner).map("".join),
    max_leaves=6,
)


@settings(max_examples=1500, deadline=None)
@given(MADE_UP, st.text(alphabet="aAbBcCkKsSxXyYzZ iI1. -’éÉſKİı\n\t", max_size=12))
@example("abc", "xABCx")
@example("[A-z]", "_")
@example(r"\x41", "a")
@example("k", "K")
@example("s", "ſ")
@example("(?-i:A)", "a")
@example("(?:abc)?d", "D")
@example("(?:abcd|efgh)", "xEFGH")
def test_made_up_patterns_find_what_re_finds(pattern, text):
    try:
        expected = re.search(pattern, text, re.IGNORECASE) is not None
    except re.error:
        return
    assert Matcher(pattern).occurs_in(text, lower_text(text)) is expected


def test_a_broken_pattern_is_an_error_at_once():
    with pytest.raises(re.error):
        Matcher("(a")


@pytest.mark.parametrize("pattern", [r"\x41", "(?i:a)", "(?P<n>a)", r"(a)\1", "[A-z]", "[+-Z]", "É"])
def test_what_is_not_plainly_safe_is_left_to_re(pattern):
    assert lower_pattern(pattern) is None
