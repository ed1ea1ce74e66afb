"""Bits per byte and perplexity, against one forward pass per token in float64."""

import gzip
import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_models import PARAMETERS, load_model, save_model

from realignment.evaluation import capability
from realignment.evaluation.perplexity import (
    compare_ratios,
    read_documents,
    rolling_windows,
    score_documents,
    text_rows,
)
from realignment.parameters import CapabilityParameters
from realignment.records import DataError

DOCUMENTS = ["It rained.", "The cat sat on the mat, and the dog on the cat.", "no", "x" * 50]


def settings(**values):
    return CapabilityParameters(**{"questions": None, "text_window": 16} | values)


@pytest.mark.parametrize("window", [2, 3, 4, 7, 8, 100])
@pytest.mark.parametrize("length", [1, 2, 3, 6, 7, 8, 9, 31])
def test_windows_score_every_token_once_with_enough_context(window, length):
    tokens = list(range(1, length + 1))
    windows = rolling_windows(tokens, start=0, window=window)
    scored = [token for _, continuation in windows for token in continuation]
    assert scored == tokens
    for context, continuation in windows:
        ids = context + continuation
        assert len(ids) <= window
        assert ids == list(range(ids[0], ids[-1] + 1))
        assert len(context) >= min(continuation[0], window // 2)
    assert windows[0][0] == [0]


def test_an_empty_document_has_no_window():
    assert rolling_windows([], start=0, window=4) == []


def naive_logprob(model, tokenizer, text, window):
    """One forward pass per token, over the context that its window gives it."""
    ids = [tokenizer.eos_token_id, *tokenizer(text, add_special_tokens=False)["input_ids"]]
    total = 0.0
    start, end = 0, min(window, len(ids))
    for position in range(1, len(ids)):
        if position == end:
            end = min(end + window - window // 2, len(ids))
            start = max(0, end - window)
        with torch.no_grad():
            logits = model(torch.tensor([ids[start:position]])).logits[0, -1]
        total += float(logits.log_softmax(-1)[ids[position]])
    return total


@pytest.mark.parametrize("batch_size", [1, 3, 50])
def test_log_likelihoods_are_those_of_one_pass_per_token_in_any_batch(batch_size, tmp_path):
    model, tokenizer = load_model(save_model(tmp_path, seed=0))
    scores = score_documents(model, tokenizer, DOCUMENTS, settings(batch_size=batch_size))
    naive = [naive_logprob(model, tokenizer, text, 16) for text in DOCUMENTS]
    np.testing.assert_allclose(scores["score"], naive, rtol=1e-10)
    assert scores["bytes"].tolist() == [10, 47, 2, 50]
    assert scores["tokens"].tolist() == [10, 47, 2, 50]  # the tiny tokenizer's tokens are bytes


def test_a_document_without_tokens_is_refused_for_its_bytes_would_be_free(tmp_path):
    model, tokenizer = load_model(save_model(tmp_path, seed=0))
    with pytest.raises(DataError, match=r"no token for the document 'é'"):
        score_documents(model, tokenizer, ["It rained.", "é"], settings())


def test_a_window_is_never_longer_than_the_model_s_positions(tmp_path):
    model, tokenizer = load_model(save_model(tmp_path, seed=0))
    model.config.max_position_embeddings = 8
    scores = score_documents(model, tokenizer, DOCUMENTS, settings(text_window=1000))
    naive = [naive_logprob(model, tokenizer, text, 8) for text in DOCUMENTS]
    np.testing.assert_allclose(scores["score"], naive, rtol=1e-10)


def text_scores(before, after, sizes, before_tokens=None):
    return pd.DataFrame(
        {
            "task": "text", "before": before, "after": after, "bytes": sizes,
            "before_tokens": before_tokens or sizes, "after_tokens": sizes,
        }
    )  # fmt: skip


def test_bits_per_byte_and_perplexity_pool_tokens_and_not_documents():
    scores = text_scores([-10.0, -300.0], [-20.0, -300.0], [10, 100], before_tokens=[5, 50])
    rows = {row["metric"]: row for row in text_rows(scores, np.random.default_rng(0))}
    assert rows["bits_per_byte"]["before"] == pytest.approx(310 / 110 / math.log(2))
    assert rows["bits_per_byte"]["difference"] == pytest.approx(10 / 110 / math.log(2))
    assert rows["perplexity"]["before"] == pytest.approx(math.exp(310 / 55))
    assert rows["perplexity"]["after"] == pytest.approx(math.exp(320 / 110))
    assert {row["group"] for row in rows.values()} == {"text"}
    assert rows["bits_per_byte"]["n"] == 2


def test_a_uniform_model_needs_log2_of_its_vocabulary():
    nats = -8 * math.log(2) * 30.0  # 30 tokens of a vocabulary of 256, one byte each
    (bits, perplexity) = text_rows(text_scores([nats] * 2, [nats] * 2, [30, 30]), np.random.default_rng(0))
    assert bits["before"] == pytest.approx(8)
    assert perplexity["before"] == pytest.approx(256)
    assert (bits["difference_low"], bits["difference_high"]) == (0, 0)


def test_the_interval_covers_the_ratio_in_about_95_of_100_samples_of_documents():
    """Documents of very unequal length, whose rate goes with their length: a mean of rates would be off."""
    rng = np.random.default_rng(1)
    population = rng.lognormal(3, 0.7, 20_000)
    noise = rng.normal(0, 0.3, population.size)
    amounts = population * (1 + 0.1 * np.log(population) + noise)
    truth = amounts.sum() / population.sum()
    hits = 0
    for _ in range(100):
        drawn = rng.choice(population.size, 150, replace=False)
        side = (amounts[drawn], population[drawn])
        found = compare_ratios(side, side, np.asarray, rng)
        hits += found.before_low <= truth <= found.before_high
    assert 88 <= hits <= 99


def test_one_document_has_no_interval():
    (bits, _) = text_rows(text_scores([-3.0], [-4.0], [2]), np.random.default_rng(0))
    assert math.isnan(bits["difference_low"])
    assert bits["difference"] > 0


def test_documents_are_paragraphs_of_a_text_or_rows_of_a_table(tmp_path):
    plain = tmp_path / "text.txt"
    plain.write_text("one\ntwo\n\n  \nthree\r\n\n\n", encoding="utf-8")
    assert read_documents(str(plain)) == ["one\ntwo", "three"]
    zipped = tmp_path / "text.txt.gz"
    zipped.write_bytes(gzip.compress(plain.read_bytes()))
    assert read_documents(str(zipped)) == ["one\ntwo", "three"]
    table = tmp_path / "text.jsonl"
    table.write_text("".join(json.dumps({"text": text}) + "\n" for text in ("a\n\nb", " ", None, "c")))
    assert read_documents(str(table)) == ["a\n\nb", "c"]


def test_a_text_that_cannot_be_used_says_why(tmp_path):
    blank = tmp_path / "blank.txt"
    blank.write_text("\n \n")
    with pytest.raises(DataError, match=r"holds no document"):
        read_documents(str(blank))
    latin = tmp_path / "latin.txt"
    latin.write_bytes("é".encode("latin-1"))
    with pytest.raises(DataError, match=r"is no UTF-8 text"):
        read_documents(str(latin))
    table = tmp_path / "table.jsonl"
    table.write_text('{"document": "a"}\n')
    with pytest.raises(DataError, match=r"no column 'text'; found document"):
        read_documents(str(table))


def test_a_text_alone_is_measured_without_the_harness(tmp_path):
    models = {side: save_model(tmp_path / side, seed=seed) for seed, side in enumerate(("before", "after"))}
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(DOCUMENTS), encoding="utf-8")
    table = capability.compare_models(models, PARAMETERS, settings(text=str(text)))
    assert table["task"].tolist() == ["text"] * 4
    assert table["before"].tolist() != table["after"].tolist()
    assert table["before_tokens"].tolist() == table["after_tokens"].tolist() == [10, 47, 2, 50]
    metrics = [row["metric"] for row in capability.tabulate_capability(table, np.random.default_rng(0))]
    assert metrics == ["bits_per_byte", "perplexity"]
