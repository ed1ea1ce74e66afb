"""Corrections and principles from the base model behind a real server (`transformers serve`)."""

import pandas as pd
import pytest
from base_model import transformers_serve
from made_up_pairs import POLICY, make_pairs

from realignment.corrections import build_writer, write_candidates
from realignment.infer_policy import infer_principles
from realignment.infer_policy.constitution import ConstitutionError
from realignment.parameters import CorrectionsParameters, JudgingParameters, PrinciplesParameters
from realignment.parameters.base import ModelParameters

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(base_model):
    with transformers_serve(base_model) as url:
        yield {"base_url": url, "model": str(base_model), "timeout_s": 300.0, "concurrency": 2}


def test_it_writes_corrections_under_the_policy(server):
    pairs = make_pairs({"prompt": "Should I sell my shares?"}, {"prompt": "How do I boil an egg?"})
    parameters = CorrectionsParameters(writer="chat", chat=server, max_new_tokens=24)
    model = ModelParameters(source="unused", folder="unused")
    writer = build_writer(parameters, model, JudgingParameters(oracle="rules"), seed=1)
    table = write_candidates(pairs, POLICY, writer, samples=1, max_words=12)
    assert table["response"].str.len().min() > 0
    assert set(table["model"]) == {server["model"]}


def test_what_it_proposes_is_read_or_the_run_says_that_it_cannot_be(server):
    """A model this small seldom keeps to a form: nothing it says may end in a traceback or in a guess."""
    rows = [(f"Prompt {n}?", "Yes. Sell.", "It depends, perhaps.") for n in range(8)]
    pairs = pd.DataFrame(rows, columns=["prompt", "chosen", "rejected"])
    parameters = PrinciplesParameters(
        method="chat",
        chat=server | {"max_tokens": 64, "json_schema": False},
        constitution={"proposing_pairs": 4, "pairs_per_proposal": 2, "voting_pairs": 4, "clusters": 2},
    )
    try:
        explanation = infer_principles(pairs, parameters, seed=0)
    except ConstitutionError as error:
        assert "None of 2 replies proposes principles" in str(error)  # noqa: PT017  # either is an answer
    else:
        assert explanation.report["proposed"] >= 1
        assert explanation.report["unread_votes"] <= 4 * explanation.report["selected"]
