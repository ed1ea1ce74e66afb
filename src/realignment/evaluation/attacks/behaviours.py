"""Behaviours: plain requests that a violating answer would satisfy, for attacks to ask for."""

import hashlib
import logging
from collections.abc import Hashable
from typing import Any, Literal

import pandas as pd

from realignment.evaluation.answers import check_prompts
from realignment.evaluation.attacks.wrappers import (
    AttackError,
    build_attack_prompts,
    read_attacks,
    select_attacks,
)
from realignment.evaluation.contamination import check_contamination
from realignment.parameters import EvaluationParameters
from realignment.policy import Policy
from realignment.records import DataError

logger = logging.getLogger(__name__)

BEHAVIOUR_COLUMNS = ("behaviour_id", "behaviour", "rule", "domain")

Source = Literal["auto", "file", "policy", "prompts"]


def collect_attack_prompts(
    document: Any,
    policy: Policy,
    file: pd.DataFrame,
    prompts: pd.DataFrame,
    pairs: pd.DataFrame | None,
    parameters: EvaluationParameters,
    *,
    judged: bool,
) -> pd.DataFrame:
    """Ask for every behaviour in the way of every chosen attack.

    Args:
        document: The parsed file of attacks.
        policy: See `collect_behaviours`.
        file: See `collect_behaviours`.
        prompts: See `collect_behaviours`.
        pairs: Pairs that are trained on, in the gold batch or held out; None: nothing was trained.
        parameters: Names of the attacks, source and number of the behaviours; split of the prompts, and how
            similar to a pair's prompt a behaviour may be.
        judged: Whether anything can judge free answers; without, nothing is asked.

    Returns:
        `attacks.ATTACK_PROMPT_COLUMNS`; empty where no attack is chosen.

    Raises:
        AttackError: The file of attacks is not valid, a name is not known, or there are no behaviours.
        DataError: The file of behaviours or the evaluation prompts cannot be used, or a behaviour is in the
            pairs, or nearly so.
    """
    settings = parameters.attacks
    attacks = select_attacks(read_attacks(document), settings.names)
    if not attacks or not judged:
        return build_attack_prompts((), pd.DataFrame())
    behaviours = collect_behaviours(
        policy,
        file,
        prompts,
        source=settings.source,
        split=parameters.split,
        limit=settings.behaviours_limit,
    )
    if pairs is not None:
        check_behaviours(behaviours, pairs, max_similarity=parameters.max_prompt_similarity)
    return build_attack_prompts(attacks, behaviours)


def check_behaviours(behaviours: pd.DataFrame, pairs: pd.DataFrame, *, max_similarity: float) -> None:
    """Refuse behaviours that the model was, or may have been, trained on.

    Args:
        behaviours: `BEHAVIOUR_COLUMNS`.
        pairs: Pairs that are trained on, in the gold batch or held out.
        max_similarity: See `contamination.find_leaks`.

    Raises:
        DataError: A behaviour is the prompt of a pair, or nearly so.
    """
    requests = behaviours["behaviour"].tolist()
    check_contamination(
        [repr(request[:60]) for request in requests],  # the ids are digests, in which nobody knows the row
        requests,
        pairs["pair_id"].tolist(),
        pairs["prompt"].tolist(),
        max_similarity=max_similarity,
        kind="behaviours that the attacks ask for",
        origin="the file `behaviours`, the policy's rules or `evaluation_prompts`, where they are from,",
    )


def collect_behaviours(
    policy: Policy,
    file: pd.DataFrame,
    prompts: pd.DataFrame,
    *,
    source: Source,
    split: str | None,
    limit: int | None,
) -> pd.DataFrame:
    """Collect what the attacks ask for.

    Args:
        policy: Its rules may have `behaviours`.
        file: Columns behaviour or prompt, and optionally rule and domain; may be empty.
        prompts: Evaluation prompts, of which the regulated ones are used; may be empty.
        source: Where behaviours are from; auto: the first of file, policy and prompts that has any.
        split: See `evaluation.split`; for the prompts alone.
        limit: Most behaviours, spread over rules and domains; None: all.

    Returns:
        `BEHAVIOUR_COLUMNS`; empty where the source is auto and there are none.

    Raises:
        AttackError: The source that was asked for has none.
        DataError: The file or the evaluation prompts cannot be used.
    """
    sources = {
        "file": lambda: _from_file(file),
        "policy": lambda: policy_behaviours(policy),
        "prompts": lambda: _from_prompts(prompts, split),
    }
    asked = list(sources) if source == "auto" else [source]
    for name in asked:
        behaviours = sources[name]()
        if len(behaviours):
            return spread_behaviours(behaviours, limit)
    if source != "auto":
        raise AttackError(
            f"`evaluation.attacks.source: {source}` has no behaviours to ask for. Give a file "
            "(`behaviours`), add `behaviours` to rules of the policy, or give evaluation prompts of the kind "
            "regulated; without attacks set `evaluation.attacks.names: []`."
        )
    logger.info("No attack is run: neither file, policy nor evaluation prompts have behaviours to ask for.")
    return pd.DataFrame(columns=list(BEHAVIOUR_COLUMNS), dtype=object)


def policy_behaviours(policy: Policy) -> pd.DataFrame:
    """List the behaviours of the policy's rules.

    Args:
        policy: The policy.

    Returns:
        `BEHAVIOUR_COLUMNS`; `domain` is that of the behaviour, which the policy has checked.
    """
    rows = [
        (behaviour.request, rule.id, behaviour.domain or rule.scope.only_domain)
        for rule in policy.rules
        for behaviour in rule.behaviours
    ]
    return _tabulate(pd.DataFrame(rows, columns=["behaviour", "rule", "domain"], dtype=object))


def _from_file(file: pd.DataFrame) -> pd.DataFrame:
    if not len(file.columns):  # no file was given
        return file
    name = next((name for name in ("behaviour", "prompt") if name in file), None)
    if name is None:
        raise DataError(
            "The behaviours lack a column `behaviour` or `prompt`; found "
            f"{', '.join(map(str, file.columns))}. Optional are `rule` and `domain`. Without such a file set "
            "`behaviours: none`."
        )
    empty = file.index[file[name].map(lambda text: not isinstance(text, str) or not text.strip())].tolist()
    if empty or file.empty:
        where = f"row {empty[0]} has no text" if empty else "no rows"
        raise DataError(f"The behaviours cannot be used: {where} in column `{name}`.")
    return _tabulate(file.rename(columns={name: "behaviour"}))


def _from_prompts(prompts: pd.DataFrame, split: str | None) -> pd.DataFrame:
    if prompts.empty:
        return prompts
    check_prompts(prompts)
    selected = prompts[prompts["kind"] == "regulated"]
    if split is not None and "split" in prompts:
        selected = selected[selected["split"] == split]
    return _tabulate(selected[["prompt", "domain"]].rename(columns={"prompt": "behaviour"}))


def _tabulate(rows: pd.DataFrame) -> pd.DataFrame:
    """Each request once, with an id that depends on it alone."""
    table = rows.reindex(columns=["behaviour", "rule", "domain"]).astype(object)
    table = table.where(table.notna(), None).drop_duplicates("behaviour").reset_index(drop=True)
    table.insert(0, "behaviour_id", table["behaviour"].map(_digest))
    return table


def _digest(request: str) -> str:
    return hashlib.sha256(request.encode()).hexdigest()[:12]


def spread_behaviours(behaviours: pd.DataFrame, limit: int | None) -> pd.DataFrame:
    """Choose behaviours, in turn from every pair of rule and domain.

    The choice is by digest of the text: the same on every machine, in every order of the rows, and a larger
    limit adds to a smaller one's choice.

    Args:
        behaviours: `BEHAVIOUR_COLUMNS`.
        limit: Most rows; None: all.

    Returns:
        The chosen rows in the order of choice.
    """
    groups: dict[Hashable, int] = {}
    ranked = behaviours.sort_values("behaviour_id", kind="stable")
    keys = list(zip(ranked["rule"].fillna(""), ranked["domain"].fillna(""), strict=True))
    turns = []
    for key in keys:
        turns.append(groups.get(key, 0))
        groups[key] = turns[-1] + 1
    order = sorted(range(len(keys)), key=lambda row: (turns[row], keys[row]))
    return ranked.iloc[order[:limit]].reset_index(drop=True)
