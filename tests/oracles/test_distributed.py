"""Workers of a real Ray cluster give the verdicts of this process, also where one of them is killed."""

import gc
import os
import signal
import sys
import time
from contextlib import closing

import fragile
import pytest
from fragile import build_another_everywhere, build_deadly, build_fragile
from made_up_pairs import POLICY
from pydantic import ValidationError
from tiny_models import save_model
from transformers import AutoTokenizer

from realignment.oracles import OracleError
from realignment.oracles.cached import CachedOracle
from realignment.oracles.distributed import RayOracle, distribute
from realignment.oracles.factory import build_oracle, report_usage, without_store
from realignment.parameters import JudgingParameters, RayParameters
from realignment.policy import parse_policy
from realignment.records import Exchange

EXCHANGES = [
    Exchange(f"Should I, case {n}?", f"Answer {n} is {'long ' * (n % 7)}.", "law") for n in range(240)
]
WORKERS = {"workers": 2, "partition_size": 20}


@pytest.fixture(scope="module")
def ray():
    """Ray, for tests that start a cluster of this machine; it ends after them."""
    module = pytest.importorskip("ray", reason="the extra [ray] is not installed")
    module.cloudpickle.register_pickle_by_value(fragile)  # the workers do not import tests
    yield module
    module.shutdown()


@pytest.fixture(scope="module")
def judge(tmp_path_factory, tiny_model):
    """Section `local_lm`: a model whose verdicts differ."""
    folder = save_model(tmp_path_factory.mktemp("judge"), seed=7, scale=1.0)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = AutoTokenizer.from_pretrained(tiny_model).chat_template
    tokenizer.save_pretrained(folder)
    return {"source": folder, "folder": folder, "dtype": "float32", "device": "cpu"}


@pytest.fixture(scope="module")
def local(judge):
    """The verdicts of this process."""
    verdicts = build_oracle(parameters("local_lm", engine="local", local_lm=judge))(EXCHANGES, POLICY)
    assert {j.complies for j in verdicts} == {True, False}, "or any verdicts would be the same"
    return verdicts


def parameters(oracle, engine="ray", **sections):
    return JudgingParameters.model_validate({"oracle": oracle, "engine": engine, "ray": WORKERS} | sections)


def assert_same(actual, expected):
    assert [(j.complies, j.rules_broken, j.oracle) for j in actual] == [
        (j.complies, j.rules_broken, j.oracle) for j in expected
    ]
    # Batches are made of other exchanges, so sums are rounded elsewhere.
    assert [j.confidence for j in actual] == pytest.approx([j.confidence for j in expected], abs=1e-5)


def pids(ray, oracle):
    return [ray.get(actor.__ray_call__.remote(lambda self: os.getpid())) for actor in oracle.workers.actors]


@pytest.mark.slow
def test_two_workers_give_the_verdicts_of_this_process(ray, judge, local):
    oracle = build_oracle(parameters("local_lm", local_lm=judge))
    assert isinstance(oracle, RayOracle)
    local_oracle = build_oracle(parameters("local_lm", engine="local", local_lm=judge))
    assert (oracle.name, oracle.identity) == (local_oracle.name, local_oracle.identity), (
        "the same key in the verdict store"
    )
    assert_same(oracle(EXCHANGES, POLICY), local)
    assert_same(oracle(EXCHANGES[::-1], POLICY), local[::-1])
    assert oracle([], POLICY) == []
    assert_same(oracle(EXCHANGES[:1], POLICY), local[:1])
    assert report_usage(oracle)[oracle.name]["asked"] == 2 * len(EXCHANGES) + 1
    assert len(set(pids(ray, oracle))) == 2


@pytest.mark.slow
def test_a_worker_that_is_killed_costs_time_and_no_verdict(ray, judge, local, caplog):
    oracle = build_oracle(parameters("local_lm", local_lm=judge))
    before = pids(ray, oracle)
    actual = []
    for number, (position, judgment) in enumerate(oracle.stream(EXCHANGES, POLICY)):
        if number == 0:
            os.kill(before[0], signal.SIGKILL)
        actual.append((position, judgment))
    assert "A Ray worker died" in caplog.text, "it was killed too late for the test to mean anything"
    assert sorted(position for position, _ in actual) == list(range(len(EXCHANGES))), "each once"
    assert_same([judgment for _, judgment in sorted(actual, key=lambda pair: pair[0])], local)
    # The next call waits for nobody: a worker that is not back yet is not asked.
    assert_same(oracle(EXCHANGES, POLICY), local)


@pytest.mark.slow
def test_a_run_that_ended_early_asks_only_for_the_rest(ray, judge, local, tmp_path):
    settings = parameters("local_lm", local_lm=judge, verdict_store=str(tmp_path / "v.sqlite"))
    first = build_oracle(settings)
    assert isinstance(first, CachedOracle)
    with closing(first.stream(EXCHANGES, POLICY)) as verdicts:
        first_verdicts = [next(verdicts) for _ in range(50)]
    assert len(first_verdicts) == 50
    second = build_oracle(settings)
    assert_same(second(EXCHANGES, POLICY), local)
    assert (second.usage.stored, second.usage.asked) == (50, len(EXCHANGES) - 50)
    # What the workers left in the store answers this process too.
    local_oracle = build_oracle(settings.model_copy(update={"engine": "local"}))
    assert_same(local_oracle(EXCHANGES, POLICY), local)
    assert (local_oracle.usage.stored, local_oracle.usage.asked) == (len(EXCHANGES), 0)


@pytest.mark.slow
def test_of_a_cascade_what_computes_goes_to_the_workers_and_they_are_shared(ray, judge):
    policy = parse_policy(
        {"name": "short", "version": "1", "text": "Be brief.", "rules": [
            {"id": "short", "description": "Short.", "check": {"kind": "length", "max_words": 6}},
            {"id": "kind", "description": "Kind.", "check": {"kind": "judged"}}]},
        "test",
    )  # fmt: skip
    cascade = {"cascade": {"oracles": ["rules", "local_lm"]}, "local_lm": judge}
    oracle = build_oracle(parameters("cascade", **cascade))
    rules, model = oracle.oracles
    assert rules.workers is model.workers
    expected = build_oracle(parameters("cascade", engine="local", **cascade))(EXCHANGES, policy)
    assert {j.oracle for j in expected} == {"rules", model.name}
    assert_same(oracle(EXCHANGES, policy), expected)
    assert without_store(oracle) == oracle


@pytest.mark.slow
def test_workers_take_the_threads_they_were_given_and_leave_their_room(ray, judge):
    oracle = build_oracle(parameters("local_lm", local_lm=judge))
    worker = oracle.workers.actors[-1]
    variables = ("OMP_NUM_THREADS", "RAYON_NUM_THREADS", "CUDA_VISIBLE_DEVICES")
    actual = ray.get(worker.__ray_call__.remote(lambda self: [os.environ.get(name) for name in variables]))
    assert actual == ["1", "1", ""]
    assert ray.get(worker.__ray_call__.remote(lambda self: __import__("torch").get_num_threads())) == 1
    del oracle, worker
    gc.collect()
    deadline = time.monotonic() + 60
    while ray.available_resources().get("CPU", 0) < ray.cluster_resources()["CPU"]:
        assert time.monotonic() < deadline, "the workers hold their room"
        time.sleep(0.1)


@pytest.mark.slow
def test_what_the_oracle_raises_in_a_worker_is_raised_here_and_the_workers_live(ray, tmp_path):
    section = {"source": str(tmp_path / "missing.joblib"), "folder": str(tmp_path)}
    with pytest.raises(Exception, match=r"missing\.joblib") as caught:
        build_oracle(parameters("classifier", classifier=section))
    with pytest.raises(type(caught.value)) as local_error:
        build_oracle(parameters("classifier", engine="local", classifier=section))
    assert str(caught.value) == str(local_error.value)


@pytest.mark.slow
def test_an_exchange_that_kills_every_worker_ends_the_run_with_what_to_do(ray):
    oracle = distribute("", build_fragile, RayParameters(**WORKERS))
    poisoned = [*EXCHANGES, Exchange("Why?", "poison")]
    judged = []
    with pytest.raises(OracleError, match=r"has killed 4 Ray workers.*fewer `judging.ray.workers`"):
        judged.extend(oracle.stream(poisoned, POLICY))
    assert len(judged) >= len(EXCHANGES) - WORKERS["partition_size"], "the others are judged all the same"


@pytest.mark.slow
def test_workers_that_die_as_they_load_end_the_run(ray):
    with pytest.raises(OracleError, match=r"No Ray worker can load the oracle: each died 4 times"):
        distribute("", build_deadly, RayParameters(workers=1))


@pytest.mark.slow
def test_a_worker_that_comes_back_with_another_oracle_ends_the_run(ray):
    oracle = distribute("", build_another_everywhere, RayParameters(workers=1))
    (pid,) = pids(ray, oracle)
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(
        OracleError, match=r"judge by different oracles: .*process .*Set `judging.local_lm.dtype`"
    ):
        oracle(EXCHANGES, POLICY)


@pytest.mark.slow
def test_workers_without_room_are_refused_here(ray):
    with pytest.raises(OracleError, match=r"room for 0 of 2 workers: each needs .*'GPU': 9"):
        build_oracle(parameters("rules", ray=WORKERS | {"gpus_per_worker": 9}))


def test_without_the_extra_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)  # what Python does where a package is missing
    with pytest.raises(OracleError, match=r"pip install 'realignment\[ray\]'"):
        build_oracle(parameters("rules"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"oracle": "labels"}, "has nothing to do for labels"),
        (
            {"oracle": "vote", "vote": {"oracles": ["labels", "chat"]},
             "chat": {"base_url": "http://127.0.0.1:9/v1", "model": "m"}},
            r"nothing to do for chat, labels.*`chat` waits for its server",
        ),
        ({"oracle": "rules", "ray": {"gpus_per_worker": 1.5}}, "whole number, found 1.5"),
        ({"oracle": "rules", "ray": {"workers": 0}}, "greater than or equal to 1"),
        ({"oracle": "rules", "engine": "spark"}, "'local'"),
    ],
)  # fmt: skip
def test_what_ray_cannot_do_is_an_error_of_the_parameters(settings, message):
    with pytest.raises(ValidationError, match=message):
        JudgingParameters.model_validate({"engine": "ray"} | settings)


def test_a_chat_in_a_cascade_stays_here_and_a_worker_gets_no_more_than_its_section():
    settings = parameters(
        "cascade",
        cascade={"oracles": ["rules", "chat"]},
        chat={"base_url": "http://127.0.0.1:9/v1", "model": "m"},
    )
    assert [member.oracle for member in settings.leaf_oracles()] == ["rules", "chat"]
    assert settings.leaf_oracles()[0].dump_own_section() == '{"oracle":"rules"}'
