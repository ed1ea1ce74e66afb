"""The oracle that the parameters ask for: built in one place, for every stage that asks one."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from realignment import models
from realignment.judging import truth_labels
from realignment.oracles import CostlyOracle, Oracle
from realignment.oracles.cached import CachedOracle, VerdictStore
from realignment.oracles.cascade import CascadeOracle
from realignment.oracles.chat import ChatOracle
from realignment.oracles.labels import LabelOracle
from realignment.oracles.rules import RulesOracle
from realignment.oracles.vote import VoteOracle
from realignment.parameters import (
    CascadeParameters,
    ChatParameters,
    LocalLMParameters,
    OracleParameters,
    VoteParameters,
)
from realignment.records import DataError

if TYPE_CHECKING:  # needs torch, which takes seconds to import
    from realignment.oracles.local_lm import LocalLMOracle


def appoint(
    parameters: OracleParameters,
    pairs: pd.DataFrame,
    *,
    store: VerdictStore | None = None,
    refresh: bool = False,
) -> Oracle:
    """The oracle of these parameters; what costs is answered from the store where it can be.

    Args:
        parameters: Its kind and settings; `JudgingParameters` are such.
        pairs: What it is to judge; `labels` reads its verdicts there.
        store: Where verdicts are kept; None: nowhere.
        refresh: Ask again for what the store has.

    Raises:
        DataError: The oracle is `labels` and the pairs have none.
        ModelError: The model of `local_lm` cannot be fetched or loaded.
        OracleError: It has no chat template.
    """

    def keep(oracle: CostlyOracle) -> Oracle:
        return oracle if store is None else CachedOracle(oracle, store, refresh)

    def build(wanted: OracleParameters, sample: int = 0) -> Oracle:
        match wanted:
            case OracleParameters(oracle="rules"):
                return RulesOracle()
            case OracleParameters(oracle="labels"):
                return _read_labels(pairs)
            case OracleParameters(oracle="local_lm", local_lm=LocalLMParameters() as settings):
                return keep(load_local_lm(settings))
            case OracleParameters(oracle="chat", chat=ChatParameters() as settings):
                return keep(ChatOracle(settings, sample))
            case OracleParameters(oracle="vote", vote=VoteParameters() as settings):
                ballots = [(member, s) for member in wanted.members() for s in range(settings.samples)]
                return VoteOracle(tuple(build(*ballot) for ballot in ballots), settings.min_agreement)
            case OracleParameters(oracle="cascade", cascade=CascadeParameters() as settings):
                return CascadeOracle(tuple(map(build, wanted.members())), settings.min_confidence)
        raise ValueError(
            f"The section of `oracle: {wanted.oracle}` is missing."
        )  # validated parameters have it

    return build(parameters)


def without_store(oracle: Oracle) -> Oracle:
    """The same oracle, asked every time: what repeated judgments have to be."""
    match oracle:
        case CachedOracle():
            return oracle.oracle
        case VoteOracle() | CascadeOracle():
            return replace(oracle, oracles=tuple(map(without_store, oracle.oracles)))
    return oracle


def report_usage(oracle: Oracle) -> list[dict[str, Any]]:
    """What each costly oracle in this one has cost so far, and how often a cascade asked each of its own."""
    match oracle:
        case VoteOracle() | CascadeOracle():
            lines = [line for member in oracle.oracles for line in report_usage(member)]
        case CostlyOracle():
            return [{"oracle": oracle.name} | asdict(oracle.usage)]
        case _:
            return []
    if isinstance(oracle, CascadeOracle):
        steps = zip(oracle.oracles, oracle.asked, strict=False)
        lines += [{"oracle": f"cascade: {member.name}", "asked": asked} for member, asked in steps]
    return lines


def _read_labels(pairs: pd.DataFrame) -> LabelOracle:
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
