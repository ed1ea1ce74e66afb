"""A sequence classifier of transformers judges by the labels that it is told mean "complies"."""

import numpy as np
import pytest
import torch
from made_up_pairs import POLICY
from tiny_checkpoints import VOCABULARY, WIDTH, save_tiny_llama

from realignment.oracles.classifier import ClassifierError
from realignment.oracles.loading import fetch_sequence_classifier
from realignment.oracles.sequence_classifier import find_complying_outputs, load_sequence_classifier
from realignment.parameters import TextClassifierParameters
from realignment.records import Exchange

LABELS = ("safe", "toxic", "private")
EXCHANGES = [Exchange("Why?", text) for text in ("Because.", "a " * 40, "No!", "ab ab ab")]


@pytest.fixture(scope="module", params=["single_label_classification", "multi_label_classification"])
def folder(request, tmp_path_factory):
    """A classifier with random weights in a `save_pretrained` folder."""
    from transformers import LlamaConfig, LlamaForSequenceClassification

    path = tmp_path_factory.mktemp("guard")
    save_tiny_llama(path)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(VOCABULARY), hidden_size=WIDTH, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, id2label=dict(enumerate(LABELS)), problem_type=request.param, pad_token_id=0,
    )  # fmt: skip
    LlamaForSequenceClassification(config).save_pretrained(path)
    return path


def load(path, *complies, **settings):
    defaults = {
        "template": "{prompt} {response}", "max_length": 128, "batch_size": 3, "dtype": "float32", "device":
        "cpu", "name": "guard",
    }  # fmt: skip
    return load_sequence_classifier(str(path), complies_labels=complies, **(defaults | settings))


def logits_one_by_one(oracle, texts):
    with torch.inference_mode():
        return torch.cat(
            [oracle.model(**oracle.tokenizer(text, return_tensors="pt")).logits for text in texts]
        )


def test_the_probability_is_that_of_the_labels_that_mean_complies(folder):
    oracle = load(folder, "safe")
    logits = logits_one_by_one(oracle, [f"{e.prompt} {e.response}" for e in EXCHANGES])[:, :3]
    if oracle.model.config.problem_type == "multi_label_classification":
        expected = 1 - logits.sigmoid()[:, 1:].max(dim=1).values
    else:
        expected = logits.softmax(dim=1)[:, 0]
    np.testing.assert_allclose(oracle.predict_probability(EXCHANGES), expected.double().numpy(), atol=1e-5)


def test_verdict_and_confidence_follow_from_the_probability(folder):
    oracle = load(folder, "safe", "private")
    probability = oracle.predict_probability(EXCHANGES)
    judgments = oracle(EXCHANGES, POLICY)
    assert [j.complies for j in judgments] == (probability >= 0.5).tolist()
    assert [j.confidence for j in judgments] == pytest.approx(np.maximum(probability, 1 - probability))
    assert {j.oracle for j in judgments} == {"guard"}
    assert oracle([], POLICY) == []


def test_neither_batch_nor_order_matters(folder):
    whole = load(folder, "safe", batch_size=4).predict_probability(EXCHANGES)
    single = load(folder, "safe", batch_size=1).predict_probability(EXCHANGES[::-1])[::-1]
    np.testing.assert_allclose(whole, single, atol=1e-5)


def test_of_a_text_that_is_too_long_the_end_is_read_where_the_response_is(folder):
    oracle = load(folder, "safe", max_length=8)
    same_end = [Exchange("x" * 50, "the very same end"), Exchange("y" * 70, "the very same end")]
    first, second = oracle.predict_probability(same_end)
    assert first == pytest.approx(second, abs=1e-6)


@pytest.mark.parametrize(
    ("complies_labels", "message"),
    [
        (
            ["harmless"],
            "has the labels safe, toxic, private; `complies_labels` names harmless: no label of it",
        ),
        ([], "`complies_labels` names none"),
        (list(LABELS), "leave at least one that means that it violates"),
    ],
)
def test_wrong_labels_are_refused_with_those_that_it_has(complies_labels, message):
    with pytest.raises(ClassifierError) as error:
        find_complying_outputs(dict(enumerate(LABELS)), complies_labels, "org/guard")
    assert message in str(error.value)


def test_a_language_model_is_no_sequence_classifier(tmp_path):
    save_tiny_llama(tmp_path)
    with pytest.raises(ClassifierError, match=r"is no sequence classifier: its config says LlamaForCausalLM"):
        load(tmp_path, "safe")


def test_the_parameters_lead_to_the_folder(folder):
    parameters = TextClassifierParameters(
        source=str(folder), folder="unused", complies_labels=("safe",), template="{response}", device="cpu",
        dtype="float32",
    )  # fmt: skip
    oracle = fetch_sequence_classifier(parameters)
    assert oracle.name == f"sequence_classifier {folder.name}"
    assert oracle.complies.tolist() == [True, False, False]
    assert len(oracle(EXCHANGES, POLICY)) == 4
