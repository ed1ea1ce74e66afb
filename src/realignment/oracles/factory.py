"""Oracles from parameters: built in one place, for every stage that judges."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import pandas as pd

from realignment.oracles.batch import BatchOracle
from realignment.oracles.cached import CachedOracle, VerdictStore
from realignment.oracles.cascade import CascadeOracle
from realignment.oracles.chat import ChatOracle
from realignment.oracles.distributed import distribute
from realignment.oracles.human import HumanOracle, read_imported_verdicts
from realignment.oracles.label_index import index_labels
from realignment.oracles.labels import LabelOracle, read_truth_labels, read_truth_rules
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


def build_oracle(parameters: OracleParameters, pairs: Table | None = None) -> Oracle:
    """Return the oracle named by the parameters.

    Args:
        parameters: Its kind and settings. `JudgingParameters` also name the store that keeps its verdicts.
        pairs: What it is to judge; `labels` reads its verdicts there, and no other kind needs them.

    Returns:
        The oracle, with the verdict store around each member whose verdicts are worth storing.

    Raises:
        DataError: The oracle is `labels` and the pairs have none.
        ModelError: The model of `local_lm` cannot be fetched or loaded.
        OracleError: It has no chat template, or Ray is to judge and cannot.
        ValueError: The section of the oracle's kind is missing; validated parameters have it.
    """
    ray = parameters.workers if isinstance(parameters, JudgingParameters) else None

    def build(member: OracleParameters, sample: int = 0) -> Oracle:
        if ray is not None and member.oracle in IN_PROCESS:
            remote = distribute(member.dump_own_section(), build_oracle_from_json, ray)
            # Without an identity, its verdicts are not worth storing.
            return _with_store(remote, parameters) if remote.identity else remote
        uncached = _build_uncached_oracle(member, pairs)
        if uncached is not None:
            return uncached
        match member:
            case OracleParameters(oracle="local_lm", local_lm=LocalLMParameters() as settings):
                return _with_store(load_local_lm(settings), parameters)
            case OracleParameters(oracle="chat", chat=ChatParameters() as settings):
                return _with_store(ChatOracle(settings, sample), parameters)
            case OracleParameters(oracle="vote", vote=VoteParameters() as settings):
                # Every member votes once per sample.
                ballots = [(voter, n) for voter in member.member_oracles() for n in range(settings.samples)]
                return VoteOracle(tuple(build(*ballot) for ballot in ballots), settings.min_agreement)
            case OracleParameters(oracle="cascade", cascade=CascadeParameters() as settings):
                return CascadeOracle(tuple(map(build, member.member_oracles())), settings.min_confidence)
        raise ValueError(f"The section of `oracle: {member.oracle}` is missing.")

    return build(parameters)


def _with_store(oracle: CostlyOracle, parameters: OracleParameters) -> Oracle:
    """Return the oracle on the engine that `judging.engine` names, with the verdict store around it."""
    if not isinstance(parameters, JudgingParameters):
        return oracle
    if parameters.batches is not None and isinstance(oracle, ChatOracle):
        oracle = BatchOracle(oracle, parameters.batches, parameters.refresh)
    path = parameters.verdict_store
    return oracle if path is None else CachedOracle(oracle, VerdictStore(Path(path)), parameters.refresh)


def build_oracle_from_json(parameters: str) -> Oracle:
    """Return the oracle of these parameters in JSON, in this process: for the workers of a cluster."""
    return build_oracle(OracleParameters.model_validate_json(parameters))


def _build_uncached_oracle(parameters: OracleParameters, pairs: Table | None) -> Oracle | None:
    """Return an oracle whose verdicts are too cheap to store; None for every other kind."""
    match parameters:
        case OracleParameters(oracle="rules"):
            return RulesOracle()
        case OracleParameters(oracle="labels"):
            return _build_label_oracle(pairs)
        case OracleParameters(oracle="human", human=HumanParameters() as settings):
            return HumanOracle.from_table(read_imported_verdicts(Path(settings.verdicts)))
        case OracleParameters(oracle="classifier", classifier=TextClassifierParameters() as settings):
            return load_classifier(settings)
    return None


def without_store(oracle: Oracle) -> Oracle:
    """Return the same oracle without its verdict store, so that every call judges anew.

    To measure stability, repeated judgments must not come from the store.
    """
    match oracle:
        case CachedOracle():
            return oracle.oracle
        case VoteOracle() | CascadeOracle():
            return replace(oracle, oracles=tuple(map(without_store, oracle.oracles)))
    return oracle


def report_usage(oracle: Oracle) -> dict[str, dict[str, float]]:
    """Return what each costly oracle within this one has cost so far, by its name.

    Of a cascade, also the number of exchanges that each member judged.
    """
    match oracle:
        case CascadeOracle():
            counts = zip(oracle.oracles, oracle.exchange_counts, strict=False)
            exchanges: dict[str, float] = {member.name: count for member, count in counts}
            return {oracle.name: exchanges} | _add_usage_of(oracle.oracles)
        case VoteOracle():
            return _add_usage_of(oracle.oracles)
        case CostlyOracle():
            return {oracle.name: asdict(oracle.usage)}
    return {}


def _add_usage_of(oracles: Sequence[Oracle]) -> dict[str, dict[str, float]]:
    """Return the usage of several oracles; those of one name, such as samples of a vote, are added up."""
    total: dict[str, dict[str, float]] = {}
    for member in oracles:
        for name, counts in report_usage(member).items():
            sums = total.setdefault(name, {})
            for key, count in counts.items():
                sums[key] = sums.get(key, 0) + count
    return total


def _build_label_oracle(pairs: Table | None) -> LabelOracle:
    """Return the oracle that answers with the labels of these pairs.

    Raises:
        DataError: They have none.
    """
    pairs = pd.DataFrame() if pairs is None else pairs
    if isinstance(pairs, TableFile):
        # Larger than memory: hashes of the responses instead of the texts.
        label_index, rule_index = index_labels(pairs.parts())
        if len(label_index.hashes):
            return LabelOracle(label_index, rules=rule_index)
    else:
        labels = read_truth_labels(pairs)
        if any(label is not None for label in labels.values()):
            return LabelOracle(labels, rules=read_truth_rules(pairs))
    raise DataError(
        "`judging.oracle: labels` needs the columns chosen_complies and rejected_complies (true, false "
        f"or null), and the pairs give no label. Found columns: {', '.join(pairs.columns)}. Label some, "
        "or set `judging.oracle: rules`."
    )
