"""The oracle that the parameters ask for: built in one place, for every stage that asks one."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from realignment import models
from realignment.classifier_training import is_trained, read_trained
from realignment.judging import judge_pairs, truth_labels, truth_rules
from realignment.oracles import CostlyOracle, Oracle
from realignment.oracles.cached import CachedOracle, VerdictStore
from realignment.oracles.cascade import CascadeOracle
from realignment.oracles.chat import ChatOracle
from realignment.oracles.human import HumanOracle, read_imported
from realignment.oracles.kept_labels import keep_labels
from realignment.oracles.labels import LabelOracle
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
from realignment.policy import Policy
from realignment.records import DataError
from realignment.table_files import Table, TableFile

if TYPE_CHECKING:  # needs torch, which takes seconds to import
    from realignment.oracles.local_lm import LocalLMOracle
    from realignment.oracles.sequence_classifier import SequenceClassifierOracle


_CPU_BUDGET, _GPU_BUDGET = 4096, 65536
"""Tokens of a batch of `local_lm`; on a CPU four long requests at a time are twice as fast as twenty."""


def appoint(parameters: OracleParameters, pairs: Table | None = None) -> Oracle:
    """The oracle of these parameters.

    Args:
        parameters: Its kind and settings. `JudgingParameters` also name the store that answers what was asked
            before.
        pairs: What it is to judge; `labels` reads its verdicts there, and no other kind needs them.

    Raises:
        DataError: The oracle is `labels` and the pairs have none.
        ModelError: The model of `local_lm` cannot be fetched or loaded.
        OracleError: It has no chat template.
    """

    def keep(oracle: CostlyOracle) -> Oracle:
        if isinstance(parameters, JudgingParameters) and parameters.verdict_store is not None:
            return CachedOracle(oracle, VerdictStore(Path(parameters.verdict_store)), parameters.refresh)
        return oracle

    def build(wanted: OracleParameters, sample: int = 0) -> Oracle:
        if (cheap := _appoint_cheap(wanted, pairs)) is not None:
            return cheap
        match wanted:
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


def ask_oracles(
    sample: pd.DataFrame,
    policy: Policy,
    *,
    again: Sequence[OracleParameters],
    others: Sequence[OracleParameters],
) -> pd.DataFrame:
    """Judgments of a sample by the same oracle again, and by others; none is taken from a store.

    Returns:
        Columns of `judging.judge_pairs`, and `round`: 1 and up for the same oracle, 0 for others.
    """
    pairs = sample.assign(correction=None)
    asked = [*enumerate(again, start=1), *((0, parameters) for parameters in others)]
    parts = [
        judge_pairs(pairs, policy, without_store(appoint(parameters, pairs))).assign(round=number)
        for number, parameters in asked
    ]
    if not parts:
        return pd.DataFrame(columns=["pair_id", "response", "complies", "confidence", "oracle", "round"])
    return pd.concat(parts, ignore_index=True)


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


def load_local_lm(parameters: LocalLMParameters) -> "LocalLMOracle":
    """Fetch and load a model that judges.

    Raises:
        ModelError: It cannot be fetched or loaded.
        OracleError: It has no chat template, and is not asked as a guard model.
    """
    from realignment.models.devices import choose_device, choose_dtype
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
    model, tokenizer = models.load(reference.path, dtype=dtype, device=device)
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
        token_budget=parameters.token_budget or (_CPU_BUDGET if device == "cpu" else _GPU_BUDGET),
    )


def load_classifier(parameters: TextClassifierParameters) -> Oracle:
    """A classifier that `train_classifier` made, or a sequence classifier.

    Raises:
        ClassifierError: There is none, or its labels are not those that the parameters name.
        ModelError: The sequence classifier cannot be fetched.
    """
    source = Path(parameters.source)
    if not is_trained(source):
        return load_sequence(parameters)
    trained = read_trained(source)
    if trained.oracle is not None:
        return replace(trained.oracle, policy=trained.policy)
    assert trained.sequence_classifier is not None
    loaded = load_sequence(trained.sequence_classifier)
    return replace(loaded, calibration=trained.calibration, policy=trained.policy)


def load_sequence(parameters: TextClassifierParameters) -> "SequenceClassifierOracle":
    """Fetch and load a sequence classifier, without a calibration."""
    from realignment.models.devices import choose_device, choose_dtype
    from realignment.oracles.sequence_classifier import load_sequence_classifier

    reference = models.fetch(
        parameters.source,
        folder=Path(parameters.folder),
        sha256=parameters.sha256,
        revision=parameters.revision,
    )
    device = choose_device(parameters.device)
    return load_sequence_classifier(
        reference.path,
        complies_labels=parameters.complies_labels,
        template=parameters.template,
        max_length=parameters.max_length,
        batch_size=parameters.batch_size,
        dtype=str(choose_dtype(parameters.dtype, device)).removeprefix("torch."),
        device=device,
        name=f"sequence_classifier {_short_name(parameters.source)}",
    )


def _short_name(source: str) -> str:
    return source.partition("#")[0].rstrip("/").rpartition("/")[2]
