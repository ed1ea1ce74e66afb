"""Which principles explain the choices in preference pairs: an undocumented policy, inferred."""

from collections.abc import Sequence

import pandas as pd

from realignment.chat_client.chat import Reply, Request, converse
from realignment.infer_policy.constitution import Constitution
from realignment.infer_policy.document import read_document, write_document
from realignment.infer_policy.explain import explain
from realignment.infer_policy.table import PRINCIPLE_COLUMNS, Explanation
from realignment.parameters import PrinciplesParameters

__all__ = ["PRINCIPLE_COLUMNS", "Explanation", "infer", "read_document", "write_document"]


def infer(pairs: pd.DataFrame, parameters: PrinciplesParameters, *, seed: int) -> Explanation:
    """The principles, in the way that the parameters ask for."""
    if parameters.method == "features":
        names = {"topic_words", "folds", "resamples", "min_stability", "min_support"}
        return explain(pairs, **parameters.model_dump(include=names), seed=seed)
    settings = parameters.chat
    assert settings is not None  # checked with the parameters
    asked = parameters.constitution.model_dump()
    constitution = Constitution(**asked, min_support=parameters.min_support, seed=seed)

    def ask(requests: Sequence[Request]) -> list[Reply]:
        return converse(
            settings, requests if settings.json_schema else [Request(r.messages, {}) for r in requests]
        )

    return constitution.infer(pairs, ask)
