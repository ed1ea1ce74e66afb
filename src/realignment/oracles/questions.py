"""Questions to a language model in this process: in its chat template, or in a guard model's format."""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from realignment.oracles.prompts import (
    GUARD_FORMATS,
    ONE_WORD,
    build_system_message,
    build_user_message,
    compile_escapes,
    list_probes,
)
from realignment.policy import Policy
from realignment.records import Exchange, OracleError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Render = Callable[[Policy, Exchange], str]
_FIXED_DATE = "{% macro strftime_now(format) %}26 Jul 2024{% endmacro %}"
"""For templates that print today's date (Llama 3.1's default): verdicts must not depend on the day."""


@dataclass(frozen=True)
class Question:
    """A question to a model: the text that it continues, and the two answers that are compared.

    Attributes:
        render: Policy and exchange → the text up to where the answer begins.
        complies: The answer that means the response complies.
        violates: The other one.
        digest: Digest of the wording, for the oracle's identity.
    """

    render: Render
    complies: str
    violates: str
    digest: str


def build_chat_question(tokenizer: "PreTrainedTokenizerBase") -> Question:
    """Return the question in the model's own chat template.

    Args:
        tokenizer: The model's, with the template.

    Returns:
        The question, to be answered by Yes or No.

    Raises:
        OracleError: The model has no chat template.
    """
    if not tokenizer.chat_template:
        raise OracleError(
            "The model has no chat template: it was not trained to answer questions, and its Yes or No would "
            "mean nothing. Choose an instruction-tuned model, or a guard model with its "
            "`judging.local_lm.template`."
        )

    render_turns = build_renderer(tokenizer)
    special = list_special_tokens(tokenizer)
    escapes = compile_escapes(special)

    def render(policy: Policy, exchange: Exchange) -> str:
        return render_turns(build_system_message(policy), build_user_message(exchange, ONE_WORD, escapes))

    return _question(render, "Yes", "No", special)


def build_renderer(tokenizer: "PreTrainedTokenizerBase") -> Callable[[str, str], str]:
    """Return what puts a system and a user message into the chat template, up to where the answer begins.

    Args:
        tokenizer: The model's, with the template.

    Returns:
        System message and user message → text; they are one message where the template has no system role.
    """
    system_role = _has_system_role(tokenizer)

    def render(system: str, user: str) -> str:
        turns = [{"role": "system", "content": system}, {"role": "user", "content": user}]
        if not system_role:
            turns = [{"role": "user", "content": f"{system}\n\n{user}"}]
        return _apply(tokenizer, turns)

    return render


def _apply(tokenizer: "PreTrainedTokenizerBase", turns: list[dict[str, str]]) -> str:
    template = str(tokenizer.chat_template)
    text = tokenizer.apply_chat_template(
        turns,
        chat_template=_FIXED_DATE + template if "strftime_now" in template else template,
        tokenize=False,
        add_generation_prompt=True,
        enable_thinking=False,  # templates of reasoning models know this switch; others ignore it
    )
    return str(text)


def list_special_tokens(tokenizer: "PreTrainedTokenizerBase") -> list[str]:
    """Return what the tokenizer reads as one token wherever it occurs; not words that were added to it."""
    added = tokenizer.added_tokens_decoder.values()
    tokens = {token.content for token in added if token.special or not token.content.isalnum()}
    tokens |= set(tokenizer.all_special_tokens)
    return sorted(token for token in tokens if token.strip())


def _has_system_role(tokenizer: "PreTrainedTokenizerBase") -> bool:
    """Return whether a system message is rendered: some templates (Gemma 2) refuse it, some drop it."""
    from jinja2 import TemplateError

    mark = "system-role-probe"
    try:
        turns = [{"role": "system", "content": mark}, {"role": "user", "content": "-"}]
        return mark in _apply(tokenizer, turns)
    except TemplateError:
        return False


def build_guard_question(tokenizer: "PreTrainedTokenizerBase", family: str) -> Question:
    """Return the question in the native format of a family of guard models.

    Args:
        tokenizer: The model's.
        family: One of `prompts.GUARD_FORMATS`.

    Returns:
        The question, with the family's own two answers.
    """
    guard = GUARD_FORMATS[family]
    special = list_special_tokens(tokenizer)

    def render(policy: Policy, exchange: Exchange) -> str:
        return guard.render(policy, exchange, special)

    return _question(render, guard.complies, guard.violates, [*guard.marks, *special])


def _question(render: Render, complies: str, violates: str, marks: Iterable[str]) -> Question:
    """Return the question with the digest of its answers and of its text about every probe."""
    texts = [render(policy, exchange) for policy, exchange in list_probes([*marks])]
    wording = "\0".join([complies, violates, *texts])
    return Question(render, complies, violates, hashlib.sha256(wording.encode()).hexdigest())
