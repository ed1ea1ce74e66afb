"""Oracles judge whether responses comply with a policy: one judgment per exchange, in order."""

from dataclasses import dataclass

from realignment.chat_client.completions import Completion
from realignment.parameters import ChatParameters


@dataclass
class Usage:
    """What an oracle has cost: grows as it judges.

    Attributes:
        asked: Exchanges judged, without those that the verdict store answered.
        stored: Exchanges that the verdict store answered.
        requests: Sent to a server, repeated ones included.
        prompt_tokens: Read by the model.
        completion_tokens: Written by the model.
        cost: In the currency of the prices that the parameters give.
    """

    asked: int = 0
    stored: int = 0
    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0


def count(completion: Completion, settings: ChatParameters, usage: Usage) -> None:
    """Add to `usage` the tokens that the server counted, and their cost by the prices of the settings."""
    if completion.usage is None:
        return
    read, written = completion.usage.prompt_tokens or 0, completion.usage.completion_tokens or 0
    usage.prompt_tokens += read
    usage.completion_tokens += written
    usage.cost += (read * settings.prompt_price + written * settings.completion_price) / 1e6
