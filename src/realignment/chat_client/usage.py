"""Count requests, tokens and cost of an oracle or a writer."""

from dataclasses import dataclass

from realignment.chat_client.completions import Completion
from realignment.parameters import ChatParameters


@dataclass
class Usage:
    """What an oracle has cost so far; it grows as the oracle judges.

    Attributes:
        asked: Exchanges judged, without those that the verdict store answered.
        stored: Exchanges that the verdict store answered.
        requests: Requests sent to a server, retries included.
        prompt_tokens: Tokens read by the model.
        completion_tokens: Tokens written by the model.
        cost: Cost in the currency of the prices that the parameters give.
    """

    asked: int = 0
    stored: int = 0
    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0


def add_usage(completion: Completion, settings: ChatParameters, usage: Usage) -> None:
    """Add to `usage` the tokens that the server counted, and their cost.

    Args:
        completion: The server's answer; it may not count its tokens.
        settings: Prices per million tokens.
        usage: Changed in place.
    """
    if completion.usage is None:
        return
    prompt_tokens = completion.usage.prompt_tokens or 0
    completion_tokens = completion.usage.completion_tokens or 0
    usage.prompt_tokens += prompt_tokens
    usage.completion_tokens += completion_tokens
    price = prompt_tokens * settings.prompt_price + completion_tokens * settings.completion_price
    usage.cost += price / 1e6
