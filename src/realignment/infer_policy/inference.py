"""Inference of the principles that explain the choices in preference pairs, by either method."""

from collections.abc import Sequence

import pandas as pd

from realignment.chat_client.chat import Reply, Request, complete_chats
from realignment.infer_policy.constitution import Constitution
from realignment.infer_policy.document import read_document, write_document
from realignment.infer_policy.explain import explain_choices
from realignment.infer_policy.table import PRINCIPLE_COLUMNS, Explanation
from realignment.parameters import PrinciplesParameters

__all__ = ["PRINCIPLE_COLUMNS", "Explanation", "infer_principles", "read_document", "write_document"]


def infer_principles(pairs: pd.DataFrame, parameters: PrinciplesParameters, *, seed: int) -> Explanation:
    """Infer the principles behind the choices, by the method that the parameters name.

    Args:
        pairs: Columns prompt, chosen, rejected.
        parameters: The method and its settings.
        seed: Seeds the draws, orders, folds and samples.

    Returns:
        The principles, the strongest first, and a report on how well they explain the choices.

    Raises:
        DataError: There are too few prompts for the method `features`.
        ConstitutionError: No reply of the method `chat` can be read.
    """
    if parameters.method == "features":
        names = {"topic_words", "folds", "resamples", "min_stability", "min_support"}
        return explain_choices(pairs, **parameters.model_dump(include=names), seed=seed)
    settings = parameters.chat
    assert settings is not None  # checked with the parameters
    constitution = Constitution(
        **parameters.constitution.model_dump(), min_support=parameters.min_support, seed=seed
    )

    def complete(requests: Sequence[Request]) -> list[Reply]:
        if not settings.json_schema:  # a server without structured output refuses the option
            requests = [Request(request.messages, {}) for request in requests]
        return complete_chats(settings, requests, section="principles.chat")

    return constitution.infer_principles(pairs, complete)
