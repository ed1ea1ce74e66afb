"""How a language model in this process is asked: in its own chat template, or in a guard model's format."""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from realignment.oracles.prompts import GUARD_FORMATS, ONE_WORD, ask, escaping, instruct, probes
from realignment.policy import Policy
from realignment.records import Exchange, OracleError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Render = Callable[[Policy, Exchange], str]
_THE_DAY = "{% macro strftime_now(format) %}26 Jul 2024{% endmacro %}"
"""For templates that name the day (Llama 3.1's, whose own default this is): a verdict is not of a day."""


@dataclass(frozen=True)
class Question:
    """How a model is asked: the text that it continues, and the two answers that are compared.

    Attributes:
        render: Policy and exchange → the text up to where the answer begins.
        complies: The answer that means the response complies.
        violates: The other one.
        digest: Of all that is said: another wording, another oracle.
    """

    render: Render
    complies: str
    violates: str
    digest: str


def chat_question(tokenizer: "PreTrainedTokenizerBase") -> Question:
    """The question in the model's own chat template.

    Raises:
        OracleError: It has none.
    """
    if not tokenizer.chat_template:
        raise OracleError(
            "The model has no chat template: it was not trained to answer questions, and its Yes or No would "
            "mean nothing. Choose an instruction-tuned model, or a guard model with its "
            "`judging.local_lm.template`."
        )

    def render(policy: Policy, exchange: Exchange) -> str:
        system, user = instruct(policy), ask(exchange, ONE_WORD, escaped)
        turns = [{"role": "system", "content": system}, {"role": "user", "content": user}]
        if not system_role:
            turns = [{"role": "user", "content": f"{system}\n\n{user}"}]
        return _apply(tokenizer, turns)

    system_role, special = _has_system_role(tokenizer), _special_tokens(tokenizer)
    escaped = escaping(special)
    return _question(render, "Yes", "No", special)


def _apply(tokenizer: "PreTrainedTokenizerBase", turns: list[dict[str, str]]) -> str:
    # A reasoning model answers at once where its template can switch the reasoning off; others ignore this.
    template = str(tokenizer.chat_template)
    text = tokenizer.apply_chat_template(
        turns,
        chat_template=_THE_DAY + template if "strftime_now" in template else template,
        tokenize=False,
        add_generation_prompt=True,
        enable_thinking=False,
    )
    return str(text)


def _special_tokens(tokenizer: "PreTrainedTokenizerBase") -> list[str]:
    """What the tokenizer reads as a token of its own wherever it stands; not words that were added to it."""
    added = tokenizer.added_tokens_decoder.values()
    found = {token.content for token in added if token.special or not token.content.isalnum()}
    return sorted(token for token in found | set(tokenizer.all_special_tokens) if token.strip())


def _has_system_role(tokenizer: "PreTrainedTokenizerBase") -> bool:
    """Some templates (Gemma 2) refuse a system message, and some drop it silently."""
    from jinja2 import TemplateError

    mark = "system-role-probe"
    try:
        turns = [{"role": "system", "content": mark}, {"role": "user", "content": "-"}]
        return mark in _apply(tokenizer, turns)
    except TemplateError:
        return False


def guard_question(tokenizer: "PreTrainedTokenizerBase", family: str) -> Question:
    """The question in the native format of a family of guard models, one of `prompts.GUARD_FORMATS`."""
    guard = GUARD_FORMATS[family]
    special = _special_tokens(tokenizer)

    def render(policy: Policy, exchange: Exchange) -> str:
        return guard.render(policy, exchange, special)

    return _question(render, guard.complies, guard.violates, [*guard.marks, *special])


def _question(render: Render, complies: str, violates: str, marks: Iterable[str]) -> Question:
    said = [complies, violates, *(render(policy, exchange) for policy, exchange in probes([*marks]))]
    return Question(render, complies, violates, hashlib.sha256("\0".join(said).encode()).hexdigest())
