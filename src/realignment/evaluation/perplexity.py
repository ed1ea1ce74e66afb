"""Perplexity and bits per byte of a text: how well a model predicts ordinary writing."""

import gzip
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from realignment.evaluation.measures import metric_row
from realignment.intake.readers import SUFFIXES, read_table, require_file
from realignment.parameters import CapabilityParameters
from realignment.records import DataError
from realignment.statistics import Comparison, Interval, wilcoxon_p

TEXT = "text"
"""The task under which documents stand in `capability_scores`."""

RESAMPLES = 9999
"""Bootstrap resamples of documents."""


def read_documents(path: str) -> list[str]:
    """Read the documents of a text.

    Args:
        path: Plain text (also gzipped) with blank lines between documents, or a table with a column text.

    Returns:
        The documents that are not blank, in order.

    Raises:
        DataError: There is no such file, or no document in it.
    """
    file = Path(path)
    require_file(file)
    if file.name.removesuffix(".gz").endswith(SUFFIXES):
        table = read_table(path)
        if TEXT not in table:
            raise DataError(
                f"{path} has no column {TEXT!r}; found {', '.join(map(str, table.columns))}. Rename the "
                "column that holds the documents, or give a plain text as `evaluation.capability.text`."
            )
        documents = [str(text) for text in table[TEXT].dropna()]
    else:
        data = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
        documents = _split_paragraphs(_decode(data, path))
    documents = [document for document in documents if document.strip()]
    if not documents:
        raise DataError(f"{path} holds no document. Expected text in `evaluation.capability.text`, or null.")
    return documents


def _decode(data: bytes, path: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no UTF-8 text: {error}. Save it as UTF-8.") from error


def _split_paragraphs(text: str) -> list[str]:
    lines = ("" if line.isspace() else line for line in text.splitlines())
    return [part.strip("\n") for part in "\n".join(lines).split("\n\n")]


def rolling_windows(tokens: Sequence[int], *, start: int, window: int) -> list[tuple[list[int], list[int]]]:
    """Divide a document into context and continuation, so that every token is scored once.

    The first window scores all of its tokens, each later one its last half, so that each of these is seen
    after at least ⌊window / 2⌋ tokens: less pessimistic than windows that begin anew, at twice their cost.

    Args:
        tokens: T token ids.
        start: The token before the first, which is never scored: beginning or end of text.
        window: Most tokens of context and continuation together, ≥ 2.

    Returns:
        Context and continuation of each window; the continuations together are the tokens.
    """
    ids = [start, *tokens]
    windows = []
    scored = 1
    while scored < len(ids):
        length = window - 1 if scored == 1 else window - window // 2
        end = min(scored + length, len(ids))
        # As much context as fits, also before a last continuation that is shorter.
        windows.append((ids[max(0, end - window) : scored], ids[scored:end]))
        scored = end
    return windows


def score_documents(
    model: Any, tokenizer: Any, documents: Sequence[str], parameters: CapabilityParameters
) -> pd.DataFrame:
    """Compute the exact log-likelihood of each document.

    Args:
        model: A causal language model.
        tokenizer: Its tokenizer.
        documents: D texts.
        parameters: Batch size, and the window.

    Returns:
        One row per document: task, metric ("log_likelihood"), question (its number), score (nats, summed
        over tokens), bytes (UTF-8), tokens.

    Raises:
        DataError: The tokenizer makes no token of a document.
    """
    import torch

    from realignment.likelihood.limits import position_limit
    from realignment.likelihood.log_probs import response_log_probabilities
    from realignment.likelihood.packing import Layout
    from realignment.likelihood.tokenization import TokenizedPair

    limit = position_limit(model)
    window = min(parameters.text_window, limit.tokens if limit else parameters.text_window)
    tokens = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in documents]
    _check_tokens(documents, tokens)
    windows = []
    owners = []
    for document, ids in enumerate(tokens):
        for context, continuation in rolling_windows(ids, start=_start_token(tokenizer), window=window):
            windows.append(TokenizedPair(context, (continuation,)))
            owners.append(document)
    layout = Layout(int(tokenizer.pad_token_id), share_prompts=False, positions=limit)
    totals = np.zeros(len(documents))
    # Windows of like length together, which leaves little padding.
    order = sorted(range(len(windows)), key=lambda index: len(windows[index]))
    for first in range(0, len(order), parameters.batch_size):
        batch = order[first : first + parameters.batch_size]
        packed = layout([windows[index] for index in batch]).to(model.device)
        with torch.inference_mode():
            logprobs = response_log_probabilities(model, packed)
        np.add.at(totals, [owners[index] for index in batch], logprobs.double().cpu().numpy())
    lengths = {
        "bytes": [len(text.encode()) for text in documents],
        "tokens": [len(ids) for ids in tokens],
    }
    rows = {"task": TEXT, "metric": "log_likelihood", "question": range(len(documents)), "score": totals}
    return pd.DataFrame(rows | lengths)


def _check_tokens(documents: Sequence[str], tokens: Sequence[Sequence[int]]) -> None:
    """Refuse documents without tokens: their bytes would count as predicted for nothing."""
    for document, ids in zip(documents, tokens, strict=True):
        if not ids:
            raise DataError(
                f"The model's tokenizer has no token for the document {document[:40]!r}, so its bytes cannot "
                "be predicted. Remove it from `evaluation.capability.text`."
            )


def _start_token(tokenizer: Any) -> int:
    token = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    if token is None:
        raise DataError(
            "The tokenizer has neither a token for the beginning nor for the end of a text, so the first "
            "token of a document cannot be scored. Set `evaluation.capability.text` to null."
        )
    return int(token)


def text_rows(scores: pd.DataFrame, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    """Tabulate bits per byte and perplexity before and after; of both, less is better.

    Bits per byte is −Σ log p / (ln 2 · bytes), perplexity exp(−Σ log p / tokens), over all documents. The
    former does not depend on how a tokenizer divides the text; with two tokenizers compare by it alone.

    Args:
        scores: Rows of `capability_scores` about the text.
        rng: Source of the bootstrap over documents.

    Yields:
        The rows `bits_per_byte` and `perplexity` of group "text".
    """
    surprise = {side: -scores[side].to_numpy(float) for side in ("before", "after")}
    size = scores["bytes"].to_numpy(float)
    bits = compare_ratios((surprise["before"], size), (surprise["after"], size), _nats_to_bits, rng)
    yield metric_row("bits_per_byte", TEXT, bits, unit="bits/byte")
    before = surprise["before"], scores["before_tokens"].to_numpy(float)
    after = surprise["after"], scores["after_tokens"].to_numpy(float)
    yield metric_row("perplexity", TEXT, compare_ratios(before, after, np.exp, rng), unit="perplexity")


def _nats_to_bits(nats: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return nats / math.log(2)


Side = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]
"""Amount and size of each of n documents, shape (n,) each."""


def compare_ratios(
    before: Side,
    after: Side,
    transform: Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]],
    rng: np.random.Generator,
) -> Comparison:
    """Compare f(Σ amounts / Σ sizes) on the same documents: percentile bootstrap over documents.

    A document is drawn whole, with its amounts on both sides: its tokens are no independent observations.
    NaN intervals for a single document. The p-value is Wilcoxon's signed-rank test of the documents' own
    ratios.

    Args:
        before: Amounts and sizes before.
        after: The same documents after.
        transform: f, increasing.
        rng: Source of the resamples.

    Returns:
        The two values and their difference.
    """
    n = len(before[0])
    # How often each document is drawn, shape (RESAMPLES, n): drawing with replacement.
    draws = rng.multinomial(n, np.full(n, 1 / n), size=RESAMPLES).astype(float)
    values = []
    resampled = []
    for amounts, sizes in (before, after):
        values.append(float(transform(amounts.sum() / sizes.sum())))
        resampled.append(transform((draws @ amounts) / (draws @ sizes)))
    change = after[0] / after[1] - before[0] / before[1]
    return Comparison(
        n,
        values[0], *_percentiles(resampled[0], n),
        values[1], *_percentiles(resampled[1], n),
        values[1] - values[0], *_percentiles(resampled[1] - resampled[0], n),
        wilcoxon_p(change), "Wilcoxon signed-rank",
    )  # fmt: skip


def _percentiles(values: npt.NDArray[np.float64], n: int) -> Interval:
    if n < 2:
        return Interval(math.nan, math.nan)
    low, high = np.quantile(values, [0.025, 0.975])
    return Interval(float(low), float(high))
