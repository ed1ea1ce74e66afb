"""Which principles explain the choices in preference pairs: an undocumented policy, inferred."""

import pandas as pd

from realignment.parameters import PrinciplesParameters
from realignment.principles.document import read_document, write_document
from realignment.principles.explain import explain
from realignment.principles.table import PRINCIPLE_COLUMNS, Explanation

__all__ = ["PRINCIPLE_COLUMNS", "Explanation", "infer", "read_document", "write_document"]


def infer(pairs: pd.DataFrame, parameters: PrinciplesParameters, *, seed: int) -> Explanation:
    """The principles, in the way that the parameters ask for."""
    if parameters.method == "chat":
        raise NotImplementedError
    settings = parameters.model_dump(
        include={"topic_words", "folds", "resamples", "min_stability", "min_support"}
    )
    return explain(pairs, **settings, seed=seed)
