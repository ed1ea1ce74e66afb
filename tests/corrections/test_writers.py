"""Writers: a real model with the policy before it, and nobody verifies what it wrote itself."""

import pytest
from made_up_pairs import POLICY, make_pairs
from servers import Script, completion, scripted
from tiny_decoders import TEMPLATE, tiny_tokenizer
from tiny_models import save_model

from realignment.corrections import build_writer, write_candidates
from realignment.corrections.writers import (
    WriterError,
    check_independent,
    fold_system_turn,
    supports_system_turn,
)
from realignment.parameters import CorrectionsParameters, JudgingParameters, OracleParameters
from realignment.parameters.base import ModelParameters

RULES = JudgingParameters(oracle="rules")
PAIRS = make_pairs({}, {}, {"prompt": "How does a plant grow tall?"})


def model_parameters(source, **changes):
    settings = {"source": str(source), "folder": "unused", "dtype": "float32", "device": "cpu"}
    return ModelParameters(**settings | changes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("model"), seed=5)


def writer_of(folder, verifier=RULES, *, seed=0, **settings):
    parameters = CorrectionsParameters(writer="model", max_new_tokens=8, **settings)
    return build_writer(parameters, model_parameters(folder), verifier, seed=seed)


def test_nobody_writes_and_no_model_is_fetched_unless_asked():
    assert build_writer(CorrectionsParameters(), model_parameters("no/such/model"), RULES, seed=0) is None


def test_the_model_writes_as_many_drafts_as_asked_and_the_seed_decides_them(folder):
    first = write_candidates(PAIRS, POLICY, writer_of(folder), samples=3, max_words=60)
    assert first["candidate"].tolist() == [0, 1, 2] * 3
    assert first.groupby("pair_id")["response"].nunique().max() == 3
    again = write_candidates(PAIRS, POLICY, writer_of(folder, batch_size=2), samples=3, max_words=60)
    assert again.equals(first)
    other = write_candidates(PAIRS, POLICY, writer_of(folder, seed=1), samples=3, max_words=60)
    assert not other["response"].equals(first["response"])


def test_a_draft_names_the_model_by_source_and_digest(folder):
    assert writer_of(folder).model.startswith(f"{folder} sha256:")
    assert len(writer_of(folder).model) == len(f"{folder} sha256:") + 12


def local_lm(source):
    return OracleParameters(oracle="local_lm", local_lm={"source": str(source), "folder": "unused"})


def chat(model):
    return OracleParameters(oracle="chat", chat={"base_url": "http://localhost:1/v1", "model": model})


def test_a_model_does_not_verify_what_it_wrote(folder):
    with pytest.raises(WriterError, match=r"are the same model .*Set `corrections.verifier`"):
        writer_of(folder, local_lm(folder))
    assert writer_of(folder, local_lm("another/model"))


def test_nor_does_it_as_a_member_of_a_vote(folder):
    vote = {"oracles": ["rules", local_lm(folder)]}
    with pytest.raises(WriterError, match="the same model"):
        writer_of(folder, OracleParameters(oracle="vote", vote=vote))


def test_a_server_does_not_verify_what_its_own_model_wrote():
    with pytest.raises(WriterError, match=r"the same model \(judge-7b\)"):
        check_independent({"judge-7b"}, chat("judge-7b"))
    check_independent({"judge-7b"}, chat("judge-70b"))


HUMAN = {"oracle": "human", "human": {"verdicts": "unused"}}
CASCADE = {"oracle": "cascade", "cascade": {"oracles": ["rules", HUMAN]}}


@pytest.mark.parametrize(
    ("verifier", "message"),
    [({"oracle": "labels"}, "labels that come with the data"), (HUMAN, "people's verdicts"),
     (CASCADE, "or asks 'human'")],
)  # fmt: skip
def test_an_oracle_that_looks_verdicts_up_cannot_verify_what_a_machine_writes(folder, verifier, message):
    with pytest.raises(WriterError, match=f"{message}.*Set `corrections.verifier`"):
        writer_of(folder, OracleParameters(**verifier))


def test_labels_as_the_named_verifier_would_drop_all_that_people_wrote():
    parameters = CorrectionsParameters(verifier={"oracle": "labels"})
    with pytest.raises(WriterError, match=r"all that people wrote would be dropped. Leave it out"):
        build_writer(parameters, model_parameters("unused"), parameters.verifier, seed=0)
    for verifier in ({"oracle": "rules"}, HUMAN, CASCADE, None):
        allowed = CorrectionsParameters(verifier=verifier)
        assert build_writer(allowed, model_parameters("unused"), RULES, seed=0) is None


SYSTEM = {"role": "system", "content": "Be careful."}
USER = {"role": "user", "content": "Why?"}
WITHOUT_SYSTEM = (
    "{% for m in messages %}{% if m['role'] == 'user' %}{{ m['content'] }}{% endif %}{% endfor %}"
)
RAISING = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"


@pytest.mark.parametrize(
    ("template", "supported"), [(TEMPLATE, True), (WITHOUT_SYSTEM, False), (RAISING, False)]
)
def test_a_template_that_has_no_system_turn_is_recognised(template, supported):
    assert supports_system_turn(tiny_tokenizer(template=template)) is supported


def test_the_policy_then_stands_before_the_first_user_turn():
    answer = {"role": "assistant", "content": "So."}
    folded = fold_system_turn([SYSTEM, USER, answer, USER])
    assert folded == [{"role": "user", "content": "Be careful.\n\nWhy?"}, answer, USER]


def test_a_chat_writer_needs_its_server():
    with pytest.raises(ValueError, match="needs its section `chat"):
        CorrectionsParameters(writer="chat")


def chat_writer(url, seed=7):
    parameters = CorrectionsParameters(
        writer="chat", chat={"base_url": url, "model": "writer-7b"}, temperature=0.6
    )
    return build_writer(parameters, model_parameters("unused"), RULES, seed=seed)


def test_a_server_writes_samples_that_differ_by_their_seed():
    script = Script(
        lambda body, _: completion(f"draft {body['seed']}", finish="stop" if body["seed"] % 2 else "length")
    )
    with scripted(script) as url:
        table = write_candidates(PAIRS, POLICY, chat_writer(url), samples=2, max_words=60)
    assert table["response"].tolist() == [f"draft {seed}" for seed in range(7, 13)]
    assert table["complete"].tolist() == [True, False] * 3
    assert set(table["model"]) == {"writer-7b"}
    bodies = sorted(script.bodies, key=lambda body: body["seed"])
    assert [body["messages"][-1]["content"] for body in bodies] == [
        p for p in PAIRS["prompt"] for _ in range(2)
    ]
    assert all(POLICY.text in body["messages"][0]["content"] for body in bodies)
    assert {body["temperature"] for body in bodies} == {0.6}


def test_a_draft_that_the_server_does_not_give_is_empty_and_passes_no_gate(caplog):
    script = Script(lambda body, _: 400 if body["seed"] == 8 else completion("A sound draft."))
    with scripted(script) as url:
        table = write_candidates(PAIRS, POLICY, chat_writer(url), samples=1, max_words=60)
    assert table["response"].tolist() == ["A sound draft.", "", "A sound draft."]
    assert "1 of 3 corrections were not written" in caplog.text
