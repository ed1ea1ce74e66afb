"""The oracle that the parameters ask for: built in one place, for every stage that asks one."""

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from realignment import models
from realignment.judging import truth_labels
from realignment.oracles import Oracle
from realignment.oracles.labels import LabelOracle
from realignment.oracles.rules import RulesOracle
from realignment.parameters import LocalLMParameters, OracleParameters
from realignment.records import DataError

if TYPE_CHECKING:  # needs torch, which takes seconds to import
    from realignment.oracles.local_lm import LocalLMOracle


def appoint(parameters: OracleParameters, pairs: pd.DataFrame) -> Oracle:
    """The oracle of these parameters.

    Args:
        parameters: Its kind and settings; `JudgingParameters` are such.
        pairs: What it is to judge; `labels` reads its verdicts there.

    Raises:
        DataError: The oracle is `labels` and the pairs have none.
    """
    match parameters.oracle:
        case "rules":
            return RulesOracle()
        case "labels":
            return _appoint_labels(pairs)
        case "local_lm":
            assert parameters.local_lm is not None  # the parameters have checked it
            return load_local_lm(parameters.local_lm)
    raise NotImplementedError(parameters.oracle)


def _appoint_labels(pairs: pd.DataFrame) -> LabelOracle:
    labels = truth_labels(pairs)
    if not any(label is not None for label in labels.values()):
        raise DataError(
            "`judging.oracle: labels` needs the columns chosen_complies and rejected_complies (true, false "
            f"or null), and the pairs give no label. Found columns: {', '.join(pairs.columns)}. Label some, "
            "or set `judging.oracle: rules`."
        )
    return LabelOracle(labels)


def load_local_lm(parameters: LocalLMParameters) -> "LocalLMOracle":
    """Fetch and load a model that judges.

    Raises:
        ModelError: It cannot be fetched or loaded.
        OracleError: It has no chat template, and is not asked as a guard model.
    """
    from realignment.models.devices import choose_attention, choose_device, choose_dtype
    from realignment.oracles.local_lm import LocalLMOracle
    from realignment.oracles.questions import chat_question, guard_question

    reference = models.fetch(
        parameters.source,
        folder=Path(parameters.folder),
        sha256=parameters.sha256,
        revision=parameters.revision,
    )
    device = choose_device(parameters.device)
    dtype = str(choose_dtype(parameters.dtype, device)).removeprefix("torch.")
    attention = choose_attention(parameters.attention, device)
    model, tokenizer = models.load(reference.path, dtype=dtype, device=device, attention=attention)
    if parameters.template == "chat":
        tokenizer.chat_template = models.own_chat_template(tokenizer)
        question = chat_question(tokenizer)
    else:
        question = guard_question(tokenizer, parameters.template)
    return LocalLMOracle(
        model=model.eval(),
        tokenizer=tokenizer,
        question=question,
        name=f"local_lm {_short_name(parameters.source)}",
        identity=f"local_lm {reference.sha256} {dtype} {question.digest}",
        token_budget=parameters.token_budget,
    )


def _short_name(source: str) -> str:
    return source.partition("#")[0].rstrip("/").rpartition("/")[2]
