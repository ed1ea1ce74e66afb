"""The parameters name the oracle; it is built in one place, with the store around what costs."""

import json
import sys
from pathlib import Path

import batch_command
import pytest
from made_up_pairs import POLICY, make_pairs
from pydantic import ValidationError
from servers import COMPLIES, VIOLATES, Script, completion, exchange_of, scripted

from realignment.audit.comparison import compare_oracles
from realignment.audit.repeats import judge_again
from realignment.judging import judge_pairs
from realignment.oracles import OracleError
from realignment.oracles.batch import BatchOracle
from realignment.oracles.cached import CachedOracle
from realignment.oracles.cascade import CascadeOracle
from realignment.oracles.chat import ChatOracle
from realignment.oracles.factory import build_oracle, report_usage, without_store
from realignment.oracles.labels import LabelOracle
from realignment.oracles.local_lm import LocalLMOracle
from realignment.oracles.rules import RulesOracle
from realignment.oracles.vote import VoteOracle
from realignment.parameters import JudgingParameters
from realignment.pipelines.judging import nodes
from realignment.policy import Policy
from realignment.records import DataError, HealthError
from realignment.triage import triage

PAIRS = make_pairs({"chosen_complies": True, "rejected_complies": False}, {"chosen_complies": False})
CHAT = {"base_url": "http://127.0.0.1:9/v1", "model": "m"}


READS = {"source": "my/model", "folder": "my"}


def parameters(oracle, **sections):
    return JudgingParameters.model_validate({"oracle": oracle} | sections)


def test_every_simple_kind_is_built(tiny_model, tmp_path):
    local = {"source": str(tiny_model), "folder": str(tmp_path), "dtype": "float32", "device": "cpu"}
    built = {
        RulesOracle: parameters("rules"),
        LabelOracle: parameters("labels"),
        ChatOracle: parameters("chat", chat=CHAT),
        LocalLMOracle: parameters("local_lm", local_lm=local),
    }
    for kind, settings in built.items():
        assert type(build_oracle(settings, PAIRS)) is kind


def test_what_costs_is_kept_and_what_is_free_is_not(tmp_path):
    path = str(tmp_path / "verdicts.sqlite")
    assert isinstance(build_oracle(parameters("rules", verdict_store=path), PAIRS), RulesOracle)
    oracle = build_oracle(parameters("chat", chat=CHAT, verdict_store=path, refresh=True), PAIRS)
    assert isinstance(oracle, CachedOracle)
    assert oracle.refresh
    assert str(oracle.store.path) == path
    assert isinstance(without_store(oracle), ChatOracle)
    assert isinstance(build_oracle(parameters("chat", chat=CHAT), PAIRS), ChatOracle)


def test_the_engine_says_how_chat_is_asked(tmp_path):
    batches = {"engine": "vllm_batch", "vllm_batch": {"folder": str(tmp_path / "batches")}}
    settings = parameters(
        "chat", chat=CHAT, verdict_store=str(tmp_path / "v.sqlite"), refresh=True, **batches
    )
    oracle = build_oracle(settings, PAIRS)
    assert isinstance(oracle, CachedOracle)
    assert isinstance(oracle.oracle, BatchOracle)
    assert oracle.oracle.refresh
    assert oracle.identity == build_oracle(parameters("chat", chat=CHAT), PAIRS).identity
    assert settings.pairs_per_chunk is None
    assert parameters("chat", chat=CHAT, chunk_size=7).pairs_per_chunk == 7
    assert isinstance(build_oracle(parameters("chat", chat=CHAT, **batches), PAIRS), BatchOracle)


def test_a_vote_has_its_members_and_samples(tmp_path):
    own = {"oracle": "chat", "chat": CHAT | {"model": "n"}}
    settings = parameters(
        "vote", chat=CHAT, vote={"oracles": ["rules", "chat", own]}, verdict_store=str(tmp_path / "v.sqlite")
    )
    oracle = build_oracle(settings, PAIRS)
    assert isinstance(oracle, VoteOracle)
    assert [member.name for member in oracle.oracles] == ["rules", "chat m", "chat n"]
    assert [type(m) for m in oracle.oracles] == [RulesOracle, CachedOracle, CachedOracle]
    assert [type(m) for m in without_store(oracle).oracles] == [RulesOracle, ChatOracle, ChatOracle]
    sampled = build_oracle(
        parameters("vote", chat=CHAT | {"temperature": 0.7}, vote={"oracles": ["chat"], "samples": 3}), PAIRS
    )
    assert [member.sample for member in sampled.oracles] == [0, 1, 2]
    assert len({member.identity for member in sampled.oracles}) == 3


def test_a_cascade_may_hold_a_vote():
    vote = {"oracle": "vote", "vote": {"oracles": ["rules", "labels"]}}
    oracle = build_oracle(
        parameters("cascade", cascade={"oracles": ["rules", vote], "min_confidence": 0.8}), PAIRS
    )
    assert isinstance(oracle, CascadeOracle)
    assert isinstance(oracle.oracles[1], VoteOracle)
    assert oracle.min_confidence == 0.8


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"oracle": "chat"}, "its section `chat: {…}` is missing"),
        ({"oracle": "vote"}, "its section `vote: {…}` is missing"),
        ({"oracle": "cascade", "cascade": {"oracles": ["rules", "local_lm"]}}, "section `local_lm: {…}`"),
        ({"oracle": "cascade", "cascade": {"oracles": ["rules"]}}, "at least 2 items"),
        ({"oracle": "vote", "vote": {"oracles": ["rules"], "samples": 2}}, "`rules` would all be equal"),
        ({"oracle": "vote", "vote": {"oracles": ["chat"], "samples": 2}, "chat": CHAT}, "above 0"),
        ({"oracle": "rules", "engine": "vllm_batch"}, "found `oracle: rules`; leave the engine out"),
        ({"oracle": "chat", "chat": CHAT, "engine": "vllm_batch"}, "needs its section `vllm_batch"),
        ({"oracle": "oracle"}, "oracle"),
        ({"oracle": "chat", "chat": CHAT | {"tempreature": 1}}, "did you mean `temperature`?"),
        ({"oracle": "rules", "zzz": 1}, "there is no parameter `zzz`; known: oracle, human"),
        ({"oracle": "classifier", "classifier": READS | {"template": "{answer}"}}, "found answer"),
        ({"oracle": "classifier", "classifier": READS | {"template": "{response} {"}}, "written twice"),
    ],
)
def test_what_cannot_be_built_is_an_error_of_the_parameters(settings, message):
    with pytest.raises(ValidationError, match=message):
        JudgingParameters.model_validate(settings)


def test_a_model_that_was_given_its_chat_template_here_is_refused(tmp_path):
    from tiny_checkpoints import save_tiny_llama

    save_tiny_llama(tmp_path / "model")
    local = {"source": str(tmp_path / "model"), "folder": str(tmp_path), "dtype": "float32", "device": "cpu"}
    with pytest.raises(OracleError, match="has no chat template"):
        build_oracle(parameters("local_lm", local_lm=local), PAIRS)


def by_response(body, attempt):
    return completion(json.dumps(COMPLIES if "chosen" in exchange_of(body)["response"] else VIOLATES))


def test_the_node_judges_reports_and_asks_nothing_twice(tmp_path):
    script = Script(by_response)
    with scripted(script) as url:
        settings = parameters(
            "chat", chat=CHAT | {"base_url": url}, stability_sample=2, chunk_size=1,
            verdict_store=str(tmp_path / "v.sqlite"),
        )  # fmt: skip
        judgments, report, manifest = nodes.judge_pairs(PAIRS, POLICY, settings, 0)
        assert len(script.bodies) == 4 + 2, "four responses, and two again for the stability"
        again, second, _ = nodes.judge_pairs(PAIRS, POLICY, settings, 0)
        assert len(script.bodies) == 6 + 2, "only the stability is asked again"
    assert judgments["complies"].tolist() == again["complies"].tolist() == [True, True, False, False]
    assert judgments["response"].tolist() == ["chosen", "chosen", "rejected", "rejected"]
    assert report["usage"]["chat m"]["requests"] == 6
    assert (second["usage"]["chat m"]["stored"], second["usage"]["chat m"]["asked"]) == (4, 2)
    assert (report["stability"], manifest["oracle"]) == (1.0, "chat m")


def test_the_node_judges_all_pairs_by_one_file_and_the_stability_by_another(tmp_path):
    script, command = Script(by_response), Path(batch_command.__file__)
    with scripted(script) as url:
        files = {"folder": str(tmp_path / "batches"), "max_requests": 100}
        files["command"] = f"{sys.executable} {command} {{input}} {{output}} {{base_url}}"
        settings = parameters(
            "chat", chat=CHAT | {"base_url": url}, engine="vllm_batch", vllm_batch=files, chunk_size=1,
            stability_sample=2, verdict_store=str(tmp_path / "v.sqlite"),
        )  # fmt: skip
        judgments, report, _ = nodes.judge_pairs(PAIRS, POLICY, settings, 0)
        again, second, _ = nodes.judge_pairs(PAIRS, POLICY, settings, 0)
    assert judgments["complies"].tolist() == again["complies"].tolist() == [True, True, False, False]
    starts = (tmp_path / "batches/starts").read_text().splitlines()
    assert [len(Path(file).read_text().splitlines()) for file in starts] == [4, 2, 2]
    assert (report["stability"], report["usage"]["chat m"]["requests"]) == (1.0, 6)
    assert (second["usage"]["chat m"]["stored"], second["usage"]["chat m"]["requests"]) == (4, 2)


def test_an_oracle_that_turns_round_does_not_hide_behind_the_store(tmp_path):
    script = Script(lambda body, attempt: completion(json.dumps(COMPLIES if attempt == 1 else VIOLATES)))
    with scripted(script) as url:
        settings = parameters(
            "chat", chat=CHAT | {"base_url": url}, verdict_store=str(tmp_path / "v.sqlite"), max_unscored=1.0
        )
        with pytest.raises(HealthError, match="repeats only 0% of its verdicts"):
            nodes.judge_pairs(PAIRS, POLICY, settings, 0)


def test_an_oracle_that_did_not_judge_does_not_pass_for_the_one_that_did():
    labels = parameters("labels")
    repeats = judge_again(PAIRS, POLICY, judged_by="labels", again=[labels], others=[labels])
    assert repeats["round"].unique().tolist() == [1, 0]
    with pytest.raises(DataError, match=r"by the oracle 'chat m', and .* name 'labels'.*`audit.repeats=0`"):
        judge_again(PAIRS, POLICY, judged_by="chat m", again=[labels], others=[])
    assert len(judge_again(PAIRS, POLICY, judged_by="chat m", again=[], others=[labels]))


def test_oracles_of_one_name_are_told_apart():
    """Every trained classifier is called `classifier`, and every vote `vote`."""
    labels, rules = parameters("labels"), parameters("rules")
    votes = [parameters("vote", vote={"oracles": [kind]}) for kind in ("labels", "rules")]
    others = [*votes, rules, votes[0]]
    rule = {"id": "short", "description": "Short.", "check": {"kind": "length", "max_words": 1}}
    policy = Policy.model_validate({"name": "p", "version": "1", "text": "Be short.", "rules": [rule]})
    repeats = judge_again(PAIRS, policy, judged_by="vote", again=[votes[0]], others=others)
    names = repeats[["oracle", "round"]].drop_duplicates().to_numpy().tolist()
    assert names == [["vote", 1], ["vote (2)", 0], ["vote (3)", 0], ["rules", 0], ["vote (4)", 0]]
    judged = judge_pairs(PAIRS, policy, build_oracle(votes[0], PAIRS))
    rows = compare_oracles(triage(PAIRS, judged, min_confidence=0.5), judged, repeats, seed=0)
    agreement = {group: found.value for scope, metric, group, found in rows if metric == "agreement"}
    assert len(agreement) == 1 + 10, "the repetition, and every two of five oracles"
    assert agreement["vote and vote (4)"] == agreement["vote (2) and vote (4)"] == 1.0
    assert agreement["vote (3) and rules"] == 1.0
    alone = judge_again(PAIRS, policy, judged_by="vote", again=[], others=[labels])
    assert alone["oracle"].unique().tolist() == ["labels"]


def test_usage_adds_up_samples_and_counts_what_a_cascade_asked():
    script = Script(by_response)
    with scripted(script) as url:
        chat = CHAT | {"base_url": url, "temperature": 0.5}
        vote = {"oracle": "vote", "vote": {"oracles": ["chat"], "samples": 2}, "chat": chat}
        oracle = build_oracle(parameters("cascade", cascade={"oracles": ["labels", vote]}), PAIRS)
        judge_pairs(PAIRS, POLICY, oracle)
    usage = report_usage(oracle)
    assert usage["cascade"] == {"labels": 4, "vote": 1}
    assert (usage["chat m"]["asked"], usage["chat m"]["requests"]) == (2, 2)
    assert report_usage(RulesOracle()) == {}


def test_another_model_template_or_precision_is_another_oracle_to_the_store(tiny_model, tmp_path):
    from tiny_models import save_model
    from transformers import AutoTokenizer

    other = save_model(tmp_path / "other", seed=1)
    tokenizer = AutoTokenizer.from_pretrained(other)
    tokenizer.chat_template = AutoTokenizer.from_pretrained(tiny_model).chat_template
    tokenizer.save_pretrained(other)
    local = {"source": str(tiny_model), "folder": str(tmp_path), "dtype": "float32", "device": "cpu"}
    changes = [{}, {"source": other}, {"template": "shieldgemma"}, {"dtype": "bfloat16"}]
    identities = {
        build_oracle(parameters("local_lm", local_lm=local | change), PAIRS).identity for change in changes
    }
    assert len(identities) == len(changes)
    quicker = parameters("local_lm", local_lm=local | {"token_budget": 7})
    assert build_oracle(quicker, PAIRS).identity in identities
