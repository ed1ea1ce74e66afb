"""Which prompts are answered, and the answers of both models side by side."""

from collections.abc import Mapping

import pandas as pd

from realignment.likelihood.tokenization import chat_messages
from realignment.model.generation import generate
from realignment.model.loading import load_configured
from realignment.parameters import EvaluationParameters
from realignment.parameters.base import ModelParameters
from realignment.records import DataError

PROMPT_COLUMNS = ("prompt_id", "prompt", "domain", "kind")
KINDS = ("regulated", "ordinary", "look_alike")


def check_prompts(prompts: pd.DataFrame) -> None:
    """Make sure that the evaluation prompts can be used.

    Raises:
        DataError: A column is missing, a prompt is empty, an id is given twice, or a kind is not known.
    """
    missing = [column for column in PROMPT_COLUMNS if column not in prompts]
    if missing:
        raise DataError(
            f"The evaluation prompts lack the columns {', '.join(missing)}; found "
            f"{', '.join(map(str, prompts.columns))}. Expected: {', '.join(PROMPT_COLUMNS)}. "
            "Without such a file set `evaluation_prompts: none`."
        )
    wrong = {
        "prompt is empty": prompts["prompt"].map(lambda text: not isinstance(text, str) or not text.strip()),
        "prompt_id is given twice": prompts["prompt_id"].duplicated(),
        f"kind is none of {', '.join(KINDS)}": ~prompts["kind"].isin(KINDS),
    }
    problems = [f"row {prompts.index[mask][0]}: {reason}" for reason, mask in wrong.items() if mask.any()]
    if problems:
        raise DataError(f"The evaluation prompts cannot be used: {'; '.join(problems)}.")


def collect_prompts(prompts: pd.DataFrame, held_out: pd.DataFrame, *, judged: bool) -> pd.DataFrame:
    """The evaluation prompts, and those of the held-out pairs with their origin (the pair's disposition).

    Args:
        prompts: PROMPT_COLUMNS; may be empty.
        held_out: Held-out pairs.
        judged: Whether the policy has rules that can judge free answers; without, nothing is generated.

    Returns:
        prompt_id, prompt, messages, domain, kind, origin; empty where `judged` is false.
    """
    columns = ["prompt_id", "prompt", "messages", "domain", "kind", "origin"]
    if not judged:
        return pd.DataFrame(columns=columns)
    parts = []
    if len(prompts):
        check_prompts(prompts)
        parts.append(prompts.reset_index(drop=True).reindex(columns=columns))
    pairs = held_out.drop_duplicates("prompt")
    renamed = pairs.rename(columns={"pair_id": "prompt_id", "disposition": "origin"})
    parts.append(renamed.assign(kind="held_out").reindex(columns=columns))
    table = pd.concat(parts, ignore_index=True)
    return table.astype({"messages": object, "origin": object, "domain": object})


def answer_with_each(
    prompts: pd.DataFrame,
    models: Mapping[str, str],
    model_parameters: ModelParameters,
    parameters: EvaluationParameters,
) -> pd.DataFrame:
    """Add one column of greedy answers per model (column name → path)."""
    table = prompts.copy()
    chats = [chat_messages(p, m) for p, m in zip(prompts["prompt"], prompts["messages"], strict=True)]
    for side, path in models.items():
        answers: list[str] = []
        if chats:
            model, tokenizer = load_configured(path, model_parameters)
            answers = generate(
                model,
                tokenizer,
                chats,
                max_new_tokens=parameters.max_new_tokens,
                batch_size=parameters.batch_size,
                repetition_penalty=parameters.repetition_penalty,
                progress=f"Answers {side}",
            )
        table[side] = pd.Series(answers, index=table.index, dtype=object)
    return table
