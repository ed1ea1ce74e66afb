"""The oracle that the parameters ask for: built in one place, for every stage that asks one."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import pandas as pd

from realignment.oracles.batch import BatchOracle
from realignment.oracles.cached import CachedOracle, VerdictStore
from realignment.oracles.cascade import CascadeOracle
from realignment.oracles.chat import ChatOracle
from realignment.oracles.distributed import distribute
from realignment.oracles.human import HumanOracle, read_imported
from realignment.oracles.kept_labels import keep_labels
from realignment.oracles.labels import LabelOracle, truth_labels, truth_rules
from realignment.oracles.loading import load_classifier, load_local_lm
from realignment.oracles.protocol import CostlyOracle, Oracle
from realignment.oracles.rules import RulesOracle
from realignment.oracles.vote import VoteOracle
from realignment.parameters import (
    CascadeParameters,
    ChatParameters,
    HumanParameters,
    JudgingParameters,
    LocalLMParameters,
    OracleParameters,
    TextClassifierParameters,
    VoteParameters,
)
from realignment.parameters.oracles import IN_PROCESS
from realignment.records import DataError
from realignment.table_files import Table, TableFile


def appoint(parameters: OracleParameters, pairs: Table | None = None) -> Oracle:
    """The oracle of these parameters.

    Args:
        parameters: Its kind and settings. `JudgingParameters` also name the store that answers what was asked
            before.
        pairs: What it is to judge; `labels` reads its verdicts there, and no other kind needs them.

    Raises:
        DataError: The oracle is `labels` and the pairs have none.
        ModelError: The model of `local_lm` cannot be fetched or loaded.
        OracleError: It has no chat template, or Ray is to judge and cannot.
    """
    ray = parameters.workers if isinstance(parameters, JudgingParameters) else None

    def build(wanted: OracleParameters, sample: int = 0) -> Oracle:
        if ray is not None and wanted.oracle in IN_PROCESS:
            sent = distribute(wanted.alone(), appoint_alone, ray)
            return _keep(sent, parameters) if sent.identity else sent
        if (cheap := _appoint_cheap(wanted, pairs)) is not None:
            return cheap
        match wanted:
            case OracleParameters(oracle="local_lm", local_lm=LocalLMParameters() as settings):
                return _keep(load_local_lm(settings), parameters)
            case OracleParameters(oracle="chat", chat=ChatParameters() as settings):
                return _keep(ChatOracle(settings, sample), parameters)
            case OracleParameters(oracle="vote", vote=VoteParameters() as settings):
                ballots = [(member, s) for member in wanted.members() for s in range(settings.samples)]
                return VoteOracle(tuple(build(*ballot) for ballot in ballots), settings.min_agreement)
            case OracleParameters(oracle="cascade", cascade=CascadeParameters() as settings):
                return CascadeOracle(tuple(map(build, wanted.members())), settings.min_confidence)
        raise ValueError(
            f"The section of `oracle: {wanted.oracle}` is missing."
        )  # validated parameters have it

    return build(parameters)


def _keep(oracle: CostlyOracle, parameters: OracleParameters) -> Oracle:
    """The oracle as `judging.engine` has it asked, with the store around it."""
    if not isinstance(parameters, JudgingParameters):
        return oracle
    if parameters.batches is not None and isinstance(oracle, ChatOracle):
        oracle = BatchOracle(oracle, parameters.batches, parameters.refresh)
    path = parameters.verdict_store
    return oracle if path is None else CachedOracle(oracle, VerdictStore(Path(path)), parameters.refresh)


def appoint_alone(wanted: str) -> Oracle:
    """The oracle of these parameters in JSON, in this process: what a worker judges by."""
    return appoint(OracleParameters.model_validate_json(wanted))


def _appoint_cheap(wanted: OracleParameters, pairs: Table | None) -> Oracle | None:
    """An oracle whose verdicts are not worth keeping; None where this is none of them."""
    match wanted:
        case OracleParameters(oracle="rules"):
            return RulesOracle()
        case OracleParameters(oracle="labels"):
            return _read_labels(pairs)
        case OracleParameters(oracle="human", human=HumanParameters() as settings):
            return HumanOracle.from_table(read_imported(Path(settings.verdicts)))
        case OracleParameters(oracle="classifier", classifier=TextClassifierParameters() as settings):
            return load_classifier(settings)
    return None


def without_store(oracle: Oracle) -> Oracle:
    """The same oracle, asked every time: what repeated judgments have to be."""
    match oracle:
        case CachedOracle():
            return oracle.oracle
        case VoteOracle() | CascadeOracle():
            return replace(oracle, oracles=tuple(map(without_store, oracle.oracles)))
    return oracle


def report_usage(oracle: Oracle) -> dict[str, dict[str, float]]:
    """What each costly oracle in this one has cost so far; of a cascade, how often it asked whom."""
    match oracle:
        case CascadeOracle():
            asked: dict[str, float] = {
                member.name: n for member, n in zip(oracle.oracles, oracle.asked, strict=False)
            }
            return {oracle.name: asked} | _usage_of(oracle.oracles)
        case VoteOracle():
            return _usage_of(oracle.oracles)
        case CostlyOracle():
            return {oracle.name: asdict(oracle.usage)}
    return {}


def _usage_of(oracles: Sequence[Oracle]) -> dict[str, dict[str, float]]:
    """Oracles of one name, such as the samples of a vote, are added up."""
    total: dict[str, dict[str, float]] = {}
    for member in oracles:
        for name, counts in report_usage(member).items():
            known = total.setdefault(name, {})
            for key, count in counts.items():
                known[key] = known.get(key, 0) + count
    return total


def _read_labels(pairs: Table | None) -> LabelOracle:
    pairs = pd.DataFrame() if pairs is None else pairs
    if isinstance(pairs, TableFile):
        kept, rules = keep_labels(pairs.parts())
        if len(kept.hashes):
            return LabelOracle(kept, rules=rules)
    elif set((labels := truth_labels(pairs)).values()) - {None}:
        return LabelOracle(labels, rules=truth_rules(pairs))
    raise DataError(
        "`judging.oracle: labels` needs the columns chosen_complies and rejected_complies (true, false "
        f"or null), and the pairs give no label. Found columns: {', '.join(pairs.columns)}. Label some, "
        "or set `judging.oracle: rules`."
    )
