"""Verdicts from a language model's reply, or the reason why there is none; never a guess."""

import json
import math
import re
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

from realignment.chat_client.completions import Token, replace_surrogates
from realignment.records import Judgment

COMPLIES = "COMPLIES"
VIOLATES = "VIOLATES"

_FENCED = re.compile(r"\A```(?:json)?[^\S\n]*\n(.*)\n```\Z", re.DOTALL)
"""A reply in a code fence, as many models write it."""
_KEYS = {"reason", "rules_broken", "verdict"}
_VERDICT_KEY = re.compile(r'(?<!\\)"verdict"\s*:\s*"')
"""Where the verdict begins in the text of a reply."""
_QUOTED_CHARACTERS = 80
"""Characters of a bad value that a reason quotes."""
_ROUNDING = 0.01
"""Nats that a log-probability may be above 0: servers compute in half precision, and round."""


class _NoVerdict(Exception):
    """A reply cannot be read, for the reason in the message."""


def reply_schema(rule_ids: Collection[str]) -> dict[str, Any]:
    """Return the JSON schema of a reply: the reason comes first, so that the verdict follows from it."""
    broken: dict[str, Any] = {"type": "array", "items": {"type": "string"}}
    if rule_ids:
        broken["items"]["enum"] = list(rule_ids)
    properties = {
        "reason": {"type": "string"},
        "rules_broken": broken,
        "verdict": {"type": "string", "enum": [COMPLIES, VIOLATES]},
    }
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def read_reply(reply: str, rule_ids: Collection[str], *, oracle: str, confidence: float = 1.0) -> Judgment:
    """Return the judgment that a reply states; unscored, with the reason, where it states none or two.

    Args:
        reply: One JSON object as `oracles.prompts.AS_JSON` asks for it, alone or in a code fence.
        rule_ids: The policy's rules.
        oracle: Name of the oracle that replied.
        confidence: Confidence in the verdict, in [0, 1].

    Returns:
        The judgment; `complies` is None where the reply cannot be read.
    """
    try:
        fields = _parse(reply, _KEYS)
        complies = _read_verdict(fields)
        broken = _read_rules(fields, rule_ids)
        if complies and broken:
            raise _NoVerdict(
                f"the verdict is {COMPLIES}, and rules are said to be broken: {', '.join(broken)}"
            )
    except _NoVerdict as problem:
        return Judgment(None, 0.0, reason=f"unreadable reply: {problem}", oracle=oracle)
    reason = fields.get("reason")
    text = replace_surrogates(reason) if isinstance(reason, str) else ""
    return Judgment(complies, confidence, broken, text, oracle)


def read_choice(reply: str, key: str, choices: Collection[str]) -> tuple[str | None, str]:
    """Return which of several choices a reply states; None where it states none, or more than one.

    Args:
        reply: One JSON object with a reason and the choice, alone or in a code fence.
        key: Key of the choice.
        choices: The values that it may have.

    Returns:
        The choice and the reply's reason; or None, and why the reply cannot be read.
    """
    try:
        fields = _parse(reply, {"reason", key})
        choice = fields.get(key)
        if not isinstance(choice, str) or choice not in choices:
            raise _NoVerdict(f"expected {key} to be one of {', '.join(choices)}, found {_quote(choice)}")
    except _NoVerdict as problem:
        return None, f"unreadable reply: {problem}"
    reason = fields.get("reason")
    return choice, replace_surrogates(reason) if isinstance(reason, str) else ""


def _parse(reply: str, keys: set[str]) -> dict[str, Any]:
    text = reply.strip()
    fenced = _FENCED.match(text)
    try:
        value = json.loads(fenced[1] if fenced else text, object_pairs_hook=_refuse_repeated_keys)
    except (ValueError, RecursionError) as error:  # a number of too many digits is a ValueError of its own
        raise _NoVerdict(f"not one JSON object: {_quote(reply)}") from error
    if not isinstance(value, dict):
        raise _NoVerdict(f"expected a JSON object, found {_quote(reply)}")
    extra = set(value) - keys
    if extra:
        raise _NoVerdict(f"unexpected keys {', '.join(map(_quote, sorted(extra)))}")
    return value


def _refuse_repeated_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    counts = Counter(key for key, _ in pairs)
    repeated = sorted(key for key, count in counts.items() if count > 1)
    if repeated:
        raise _NoVerdict(f"it states {', '.join(map(_quote, repeated))} more than once")
    return dict(pairs)


def _read_verdict(fields: dict[str, Any]) -> bool:
    verdict = fields.get("verdict")
    if verdict not in (COMPLIES, VIOLATES):
        raise _NoVerdict(f"expected the verdict {COMPLIES} or {VIOLATES}, found {_quote(verdict)}")
    return bool(verdict == COMPLIES)


def _read_rules(fields: dict[str, Any], rule_ids: Collection[str]) -> tuple[str, ...]:
    broken = fields.get("rules_broken", [])
    if not isinstance(broken, list) or not all(isinstance(rule, str) for rule in broken):
        raise _NoVerdict(f"expected a list of rule ids, found {_quote(broken)}")
    unknown = sorted(set(broken) - set(rule_ids))
    if unknown:
        raise _NoVerdict(f"the policy has no rule {', '.join(map(_quote, unknown))}")
    return tuple(rule for rule in rule_ids if rule in broken)


def verdict_confidence(tokens: Sequence[Token]) -> float | None:
    """Return the verdict's probability against the other verdict, at the token that decides between them.

    Args:
        tokens: Tokens of the reply, in order, each with the alternatives that the server lists for it, itself
            among them, and their log-probabilities in nats.

    Returns:
        In (0, 1]; None where the server gave no log-probabilities, or not of a verdict, or where what it
        gave for one of the two is no log-probability (null, NaN, above 0).
    """
    reply = "".join(token for token, _ in tokens)
    positions = [match.end() for match in _VERDICT_KEY.finditer(reply)]
    if not positions:
        return None
    # The last one: the reason may quote a verdict before it.
    position = positions[-1]
    start = 0
    for token, alternatives in tokens:
        if start <= position < start + len(token):
            before = position - start  # characters of this token that precede the verdict
            # Only alternatives that agree up to the verdict decide between the two.
            ends = [
                (text[before:], logprob) for text, logprob in alternatives if text[:before] == token[:before]
            ]
            stated, other = (COMPLIES, VIOLATES) if COMPLIES[0] == token[before] else (VIOLATES, COMPLIES)
            mass = _sum_probabilities(stated, ends)
            total = mass + _sum_probabilities(other, ends)
            # Both comparisons are false of NaN.
            return mass / total if total > 0 and mass > 0 else None
        start += len(token)
    return None


def _sum_probabilities(word: str, ends: Sequence[tuple[str, float | None]]) -> float:
    """Return the probability of the tokens that the word can begin with; NaN where one is not known."""
    return sum(_to_probability(logprob) for text, logprob in ends if _can_begin(word, text))


def _to_probability(logprob: float | None) -> float:
    """Return exp(logprob); NaN of what is no log-probability, NaN itself included."""
    return math.nan if logprob is None or not logprob <= _ROUNDING else math.exp(min(logprob, 0.0))


def _can_begin(word: str, text: str) -> bool:
    """Return whether a token of this text can be the first one of the word."""
    return bool(text) and (word.startswith(text) or text.startswith(word))


def _quote(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _QUOTED_CHARACTERS else f"{text[:_QUOTED_CHARACTERS]}…"
