"""From text to token ids: the prompt as the model reads it, each response with its end-of-turn token."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from realignment.records import RealignmentError


class PromptTooLongError(RealignmentError):
    """A prompt alone has as many tokens as prompt and response may have together."""


@dataclass(frozen=True, slots=True)
class TokenizedPair:
    """A prompt and its responses as token ids; every response ends with the end-of-turn token."""

    prompt: list[int]
    responses: tuple[list[int], ...]

    def __len__(self) -> int:
        return len(self.prompt) + sum(map(len, self.responses))

    @property
    def width(self) -> int:
        """Tokens of the prompt and the longest response: the longest sequence that a model sees."""
        return len(self.prompt) + max(map(len, self.responses), default=0)


def chat_messages(prompt: str, messages: str | None = None) -> list[dict[str, str]]:
    """Return the chat before the response: `messages` (JSON) where the data has it, else one user turn."""
    if isinstance(messages, str) and messages:
        return json.loads(messages)  # type: ignore[no-any-return]
    return [{"role": "user", "content": prompt}]


def prompt_text(tokenizer: PreTrainedTokenizerBase, chat: list[dict[str, str]]) -> str:
    """Return the text that the model continues: the chat template's, or without one the bare turns."""
    if tokenizer.chat_template is None:
        return "\n\n".join(turn["content"] for turn in chat) + "\n\n"
    return str(tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True))


def tokenize_pair(
    tokenizer: PreTrainedTokenizerBase,
    chat: list[dict[str, str]],
    responses: Sequence[str],
    *,
    max_response_tokens: int,
    max_tokens: int | None = None,
) -> TokenizedPair:
    """Tokenise prompt and responses separately, so that the prompt is exactly what generation sees.

    Args:
        tokenizer: The model's own.
        chat: Messages before the response.
        responses: Texts, without any template.
        max_response_tokens: Longer responses are cut, and then end without an end-of-turn token.
        max_tokens: The same limit for prompt and response together; None: no such limit.

    Returns:
        The prompt with its generation prompt, and each response with the end-of-turn token.

    Raises:
        PromptTooLongError: The prompt leaves no token of `max_tokens` to its responses.
    """

    def encode(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    prompt = encode(prompt_text(tokenizer, chat))
    limit = max_response_tokens
    if max_tokens is not None:
        limit = min(limit, max_tokens - len(prompt))
        if limit < 1:
            raise PromptTooLongError(
                f"A prompt of {len(prompt)} tokens leaves no room for a response in the {max_tokens} of "
                f"`training.max_tokens` (it begins {chat[-1]['content'][:40]!r}). Drop the pair, or set "
                "`training.max_tokens` higher or to null."
            )
    end_of_turn = tokenizer.eos_token_id
    completions = ([*encode(text.strip()), end_of_turn][:limit] for text in responses)
    return TokenizedPair(prompt, tuple(completions))
