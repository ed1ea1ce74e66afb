"""How a language model in this process is asked: in its own chat template, or in a guard model's format."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from realignment.oracles import OracleError
from realignment.oracles.prompts import GUARD_FORMATS, ONE_WORD, ask, instruct
from realignment.policy import Policy
from realignment.records import Exchange

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Render = Callable[[Policy, Exchange], str]


@dataclass(frozen=True)
class Question:
    """How a model is asked: the text that it continues, and the two answers that are compared.

    Attributes:
        render: Policy and exchange → the text up to where the answer begins.
        complies: The answer that means the response complies.
        violates: The other one.
        digest: Of the wording: another wording, another oracle.
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
        system, user = instruct(policy), ask(exchange, ONE_WORD)
        turns = [{"role": "system", "content": system}, {"role": "user", "content": user}]
        if not system_role:
            turns = [{"role": "user", "content": f"{system}\n\n{user}"}]
        return _apply(tokenizer, turns)

    system_role = _has_system_role(tokenizer)
    wording = [str(tokenizer.chat_template), instruct(_NO_POLICY), ask(_NO_EXCHANGE, ONE_WORD)]
    return Question(render, "Yes", "No", _digest(wording))


_NO_POLICY = Policy(name="none", version="0", text="-")
_NO_EXCHANGE = Exchange("", "", "")


def _apply(tokenizer: "PreTrainedTokenizerBase", turns: list[dict[str, str]]) -> str:
    # A reasoning model answers at once where its template can switch the reasoning off; others ignore this.
    text = tokenizer.apply_chat_template(
        turns, tokenize=False, add_generation_prompt=True, enable_thinking=False
    )
    return str(text)


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
    special = [token for token in tokenizer.get_added_vocab() if token.strip()]

    def render(policy: Policy, exchange: Exchange) -> str:
        return guard.render(policy, exchange, special)

    wording = [guard.text, guard.complies, guard.violates]
    return Question(render, guard.complies, guard.violates, _digest(wording))


def _digest(parts: Sequence[str]) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
