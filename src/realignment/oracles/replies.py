"""The verdict in a language model's reply, or why there is none; it is never guessed."""

import json
import math
import re
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

from realignment.chat_client.completions import Token, well_formed
from realignment.records import Judgment

COMPLIES, VIOLATES = "COMPLIES", "VIOLATES"


_FENCED = re.compile(r"\A```(?:json)?[^\S\n]*\n(.*)\n```\Z", re.DOTALL)


_KEYS = {"reason", "rules_broken", "verdict"}


_VERDICT_KEY = re.compile(r'(?<!\\)"verdict"\s*:\s*"')


_SHOWN = 80


_ROUNDING = 0.01
"""A log-probability may be so much above 0: servers compute in half precision, and round."""


class _NoVerdict(Exception):
    """Why a reply cannot be read."""


def reply_schema(rule_ids: Collection[str]) -> dict[str, Any]:
    """The JSON schema of a reply: a short reason first, so that the verdict follows from it."""
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
    """The judgment that a reply states; unscored, with the reason, where it states none or two.

    Args:
        reply: One JSON object as `oracles.prompts.AS_JSON` asks for it, alone or in a code fence.
        rule_ids: The policy's rules.
        oracle: Who replied.
        confidence: In the verdict, in [0, 1].
    """
    try:
        found = _parse(reply)
        complies, broken = _verdict(found), _rules(found, rule_ids)
        if complies and broken:
            raise _NoVerdict(
                f"the verdict is {COMPLIES}, and rules are said to be broken: {', '.join(broken)}"
            )
    except _NoVerdict as problem:
        return Judgment(None, 0.0, reason=f"unreadable reply: {problem}", oracle=oracle)
    reason = found.get("reason")
    return Judgment(
        complies, confidence, broken, well_formed(reason) if isinstance(reason, str) else "", oracle
    )


def _parse(reply: str) -> dict[str, Any]:
    text = reply.strip()
    fenced = _FENCED.match(text)
    try:
        found = json.loads(fenced[1] if fenced else text, object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as error:  # a number of too many digits is a ValueError of its own
        raise _NoVerdict(f"not one JSON object: {_show(reply)}") from error
    if not isinstance(found, dict):
        raise _NoVerdict(f"expected a JSON object, found {_show(reply)}")
    if extra := set(found) - _KEYS:
        raise _NoVerdict(f"unexpected keys {', '.join(map(_show, sorted(extra)))}")
    return found


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = Counter(key for key, _ in pairs)
    if repeated := sorted(key for key, n in keys.items() if n > 1):
        raise _NoVerdict(f"it states {', '.join(map(_show, repeated))} more than once")
    return dict(pairs)


def _verdict(found: dict[str, Any]) -> bool:
    verdict = found.get("verdict")
    if verdict not in (COMPLIES, VIOLATES):
        raise _NoVerdict(f"expected the verdict {COMPLIES} or {VIOLATES}, found {_show(verdict)}")
    return bool(verdict == COMPLIES)


def _rules(found: dict[str, Any], rule_ids: Collection[str]) -> tuple[str, ...]:
    broken = found.get("rules_broken", [])
    if not isinstance(broken, list) or not all(isinstance(rule, str) for rule in broken):
        raise _NoVerdict(f"expected a list of rule ids, found {_show(broken)}")
    if unknown := sorted(set(broken) - set(rule_ids)):
        raise _NoVerdict(f"the policy has no rule {', '.join(map(_show, unknown))}")
    return tuple(rule for rule in rule_ids if rule in broken)


def verdict_confidence(tokens: Sequence[Token]) -> float | None:
    """The verdict's probability against the other verdict, at the token that decides between them.

    Args:
        tokens: Of the reply, in order: each with the alternatives that the server lists, itself among them.

    Returns:
        In (0, 1]; None where the server gave no log-probabilities, or not of a verdict, or where what it
        gave for one of the two is no log-probability (null, NaN, above 0).
    """
    places = [found.end() for found in _VERDICT_KEY.finditer("".join(token for token, _ in tokens))]
    start = 0
    for token, alternatives in tokens:
        if places and start <= places[-1] < start + len(token):
            before = places[-1] - start  # characters of this token that precede the verdict
            listed = [(text[before:], p) for text, p in alternatives if text[:before] == token[:before]]
            stated, other = (COMPLIES, VIOLATES) if COMPLIES[0] == token[before] else (VIOLATES, COMPLIES)
            mass = _mass(stated, listed)
            return mass / total if (total := mass + _mass(other, listed)) > 0 and mass > 0 else None
        start += len(token)
    return None


def _mass(word: str, listed: Sequence[tuple[str, float | None]]) -> float:
    """Probability of the tokens that the word can begin with; NaN where that of one is not known."""
    return sum(_probability(p) for text, p in listed if _begins(word, text))


def _probability(logprob: float | None) -> float:
    """NaN of what is no log-probability, NaN itself included."""
    return math.nan if logprob is None or not logprob <= _ROUNDING else math.exp(min(logprob, 0.0))


def _begins(word: str, text: str) -> bool:
    return bool(text) and (word.startswith(text) or text.startswith(word))


def _show(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
