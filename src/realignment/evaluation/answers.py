"""The evaluation prompts, and the answers of both models side by side."""

import hashlib
import math
from collections.abc import Mapping, Sequence

import pandas as pd

from realignment.evaluation.chat_answers import ServedAnswer, find_served_model
from realignment.evaluation.contamination import check_contamination
from realignment.likelihood.tokenization import chat_messages
from realignment.model import generation
from realignment.model.generation import Answer, Sampling
from realignment.model.loading import load_configured_model
from realignment.parameters import EvaluationParameters
from realignment.parameters.base import ModelParameters
from realignment.records import DataError

PROMPT_COLUMNS = ("prompt_id", "prompt", "domain", "kind")
KINDS = ("regulated", "ordinary", "look_alike")


def check_prompts(prompts: pd.DataFrame) -> None:
    """Check that the evaluation prompts can be used.

    Args:
        prompts: PROMPT_COLUMNS, one row per prompt.

    Raises:
        DataError: A column is missing, a prompt is empty, an id is given twice, or a kind is not known.
    """
    missing_columns = [column for column in PROMPT_COLUMNS if column not in prompts]
    if missing_columns:
        raise DataError(
            f"The evaluation prompts lack the columns {', '.join(missing_columns)}; found "
            f"{', '.join(map(str, prompts.columns))}. Expected: {', '.join(PROMPT_COLUMNS)}. "
            "Without such a file set `evaluation_prompts: none`."
        )
    # Reason → the rows that it holds for.
    faults = {
        "prompt is empty": prompts["prompt"].map(lambda text: not isinstance(text, str) or not text.strip()),
        "prompt_id is given twice": prompts["prompt_id"].duplicated(),
        f"kind is none of {', '.join(KINDS)}": ~prompts["kind"].isin(KINDS),
    }
    problems = [f"row {prompts.index[mask][0]}: {reason}" for reason, mask in faults.items() if mask.any()]
    if problems:
        raise DataError(f"The evaluation prompts cannot be used: {'; '.join(problems)}.")


def select_prompts(
    prompts: pd.DataFrame, pairs: pd.DataFrame, *, split: str | None, max_similarity: float
) -> pd.DataFrame:
    """Select the prompts of a split, and make sure that none of them is in the pairs.

    Args:
        prompts: PROMPT_COLUMNS, and where there are several splits `split`; may be empty.
        pairs: Pairs that are trained on, in the gold batch or held out.
        split: Value of the column `split`; None: all rows. Without such a column all rows are used.
        max_similarity: See `contamination.find_leaks`.

    Returns:
        The selected rows.

    Raises:
        DataError: The prompts cannot be used, none is of the split, or one is in the pairs or nearly so.
    """
    if prompts.empty:
        return prompts
    check_prompts(prompts)
    selected = prompts
    if split is not None and "split" in prompts:
        selected = prompts[prompts["split"] == split]
        if selected.empty:
            splits = ", ".join(sorted(set(prompts["split"].dropna().map(str)))) or "none"
            raise DataError(
                f"No evaluation prompt is of the split {split!r}; found: {splits}. Set `evaluation.split` to "
                "one of these, or to null for all prompts."
            )
    check_contamination(
        selected["prompt_id"].tolist(),
        selected["prompt"].tolist(),
        pairs["pair_id"].tolist(),
        pairs["prompt"].tolist(),
        max_similarity=max_similarity,
    )
    return selected


def collect_prompts(prompts: pd.DataFrame, held_out: pd.DataFrame, *, judged: bool) -> pd.DataFrame:
    """Join the evaluation prompts and those of the held-out pairs, whose origin is the pair's disposition.

    Args:
        prompts: PROMPT_COLUMNS; may be empty.
        held_out: Held-out pairs.
        judged: Whether the policy has rules that can judge free answers; without, nothing is generated.

    Returns:
        prompt_id, prompt, messages, domain, kind, origin; empty where `judged` is false.

    Raises:
        DataError: The evaluation prompts cannot be used (see `check_prompts`).
    """
    columns = ["prompt_id", "prompt", "messages", "domain", "kind", "origin"]
    if not judged:
        return pd.DataFrame(columns=columns)
    parts = []
    if len(prompts):
        check_prompts(prompts)
        parts.append(prompts.reset_index(drop=True).reindex(columns=columns))
    # Several pairs may share a prompt; it is answered once, under the first pair's id and disposition.
    pairs = held_out.drop_duplicates("prompt")
    renamed = pairs.rename(columns={"pair_id": "prompt_id", "disposition": "origin"})
    parts.append(renamed.assign(kind="held_out").reindex(columns=columns))
    table = pd.concat(parts, ignore_index=True)
    # Columns that no part fills would otherwise be float, and differ from run to run.
    return table.astype({"messages": object, "origin": object, "domain": object})


def generate_answers(
    prompts: pd.DataFrame,
    models: Mapping[str, str],
    model_parameters: ModelParameters,
    parameters: EvaluationParameters,
    *,
    seed: int,
) -> pd.DataFrame:
    """Add the answers of every model: greedy ones, or several samples of each prompt.

    Args:
        prompts: From `collect_prompts`.
        models: Column name → folder of the model.
        model_parameters: How the models are loaded.
        parameters: Engine, length limit, samples and temperature; of `engine: local`, batch size and
            repetition penalty; of `engine: chat`, the server, which knows the models by names of its own.
        seed: Of the draws; a sample depends on it, its prompt and its number alone.

    Returns:
        The prompts, one row per sample, with its number `sample` (from 0), and per model its texts,
        `<model>_cut` (whether the answer has no end within the limit) and `<model>_entropy` (nats per token),
        null where a server does not tell.

    Raises:
        OracleError: The server is not there, refuses the key or the model, or answers nothing at all.
        AnswerError: A server has not answered some prompts; the answers that came are kept.
    """
    table = prompts.loc[prompts.index.repeat(parameters.samples)].reset_index(drop=True)
    table["sample"] = table.groupby("prompt_id").cumcount().astype("int64")
    chats = [
        chat_messages(prompt, messages)
        for prompt, messages in zip(table["prompt"], table["messages"], strict=True)
    ]
    streams = _streams(table)
    for side, path in models.items():
        answers: Sequence[Answer | ServedAnswer] = []
        if chats and parameters.server is not None:
            model = find_served_model(parameters, side, path)
            answers = model.answer(chats, _add_seed(streams, seed), progress=f"Answers {side}")
        elif chats:  # without prompts no model is loaded
            answers = _answer_here(chats, streams, path, model_parameters, parameters, side=side, seed=seed)
        texts = [answer.text for answer in answers]
        cut = [None if answer.complete is None else not answer.complete for answer in answers]
        entropies = [answer.entropy if isinstance(answer, Answer) else math.nan for answer in answers]
        table[side] = pd.Series(texts, index=table.index, dtype=object)
        table[f"{side}_cut"] = pd.array(cut, dtype="boolean")
        table[f"{side}_entropy"] = pd.array(entropies, dtype="float64")
    return table


def _answer_here(
    chats: Sequence[list[dict[str, str]]],
    streams: Sequence[int],
    path: str,
    model_parameters: ModelParameters,
    parameters: EvaluationParameters,
    *,
    side: str,
    seed: int,
) -> list[Answer]:
    """Answers of a model in this process."""
    model, tokenizer = load_configured_model(path, model_parameters)
    return generation.generate_answers(
        model,
        tokenizer,
        chats,
        max_new_tokens=parameters.max_new_tokens,
        batch_size=parameters.batch_size,
        repetition_penalty=parameters.repetition_penalty,
        sampling=Sampling(parameters.temperature, 1.0, seed) if parameters.temperature > 0 else None,
        streams=streams,
        progress=f"Answers {side}",
    )


def _streams(table: pd.DataFrame) -> list[int]:
    """Numbers of the streams of random draws: of the prompt and the sample, whatever else is in the table."""
    names = table["prompt_id"].astype(str) + "\n" + table["sample"].astype(str)
    return [_hash(name) for name in names]


def _add_seed(streams: Sequence[int], seed: int) -> list[int]:
    """Numbers of the streams under a seed, for a server that knows one number alone."""
    return [_hash(f"{seed}\n{stream}") for stream in streams]


def _hash(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=7).digest(), "big")
