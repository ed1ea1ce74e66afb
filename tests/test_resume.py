"""`kedro run` that judges by a server, killed on the way: the next one asks only for what is missing."""

import json
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing

import pandas as pd
import pytest
from command_line import ROOT, arguments, environment, kedro, saved
from servers import COMPLIES, VIOLATES, Script, completion, exchange_of, scripted

from realignment.chat_client.store import BATCH_SIZE

pytestmark = pytest.mark.slow
CONCURRENCY = 4


def judge(body, attempt):
    time.sleep(0.05)
    return completion(json.dumps(VIOLATES if "should" in exchange_of(body)["response"] else COMPLIES))


def options(url, folder):
    return {
        "judging__oracle": "chat", "judging__chat__base_url": url, "judging__chat__model": "m",
        "judging__chat__concurrency": CONCURRENCY, "judging__stability_sample": 0, "data_root": folder,
    }  # fmt: skip


def kept(folder):
    with closing(sqlite3.connect(folder / "02_intermediate/verdicts.sqlite")) as store:
        return store.execute("SELECT count(*) FROM verdicts").fetchone()[0]


@pytest.mark.parametrize("pipeline", ["judging", "judge_stream"])
def test_a_killed_run_goes_on_and_a_refreshed_one_asks_for_everything(tmp_path, pipeline):
    script = Script(judge)
    with scripted(script) as url:
        command = arguments("--pipelines", pipeline, **options(url, tmp_path))
        run = subprocess.Popen(
            [sys.executable, "-m", "kedro", *command], cwd=ROOT, env=environment(),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        while len(script.bodies) < BATCH_SIZE + 20:
            assert run.poll() is None, "it ended before it could be killed"
            time.sleep(0.005)
        run.send_signal(signal.SIGKILL)
        run.wait()
        time.sleep(0.3)  # requests that were under way arrive
        asked, stored = len(script.bodies), kept(tmp_path)
        assert 0 < stored <= asked
        assert asked - stored <= BATCH_SIZE + 2 * CONCURRENCY

        again = kedro("--pipelines", pipeline, **options(url, tmp_path))
        assert again.exit_code == 0, again.output[-2000:]
        judgments = pd.read_parquet(saved(tmp_path / "02_intermediate/judgments.parquet"))
        different = {json.dumps(exchange) for exchange in script.asked()}
        assert len(script.bodies) - asked == len(different) - stored
        assert kept(tmp_path) == len(different)
        assert judgments["complies"].notna().all()
        report = json.loads(saved(tmp_path / "08_reporting/oracle_report.json").read_text())
        assert report["usage"]["chat m"]["requests"] == len(different) - stored

        before = len(script.bodies)
        refreshed = kedro("--pipelines", pipeline, **options(url, tmp_path), judging__refresh="true")
        assert refreshed.exit_code == 0, refreshed.output[-2000:]
        assert len(script.bodies) - before >= len(different)


def test_a_wrong_address_is_one_clear_sentence(tmp_path):
    given = options("http://127.0.0.1:9/v1", tmp_path) | {"judging__chat__max_attempts": 1}
    outcome = kedro("--pipelines", "judging", **given)
    assert outcome.exit_code != 0
    assert outcome.error.startswith("No server answers at http://127.0.0.1:9/v1"), outcome.output[-2000:]
    assert "only what is missing is requested" in outcome.error


def test_a_local_model_judges_a_run_and_is_not_asked_twice(tiny_model, tmp_path):
    given = {
        "judging__oracle": "local_lm", "judging__stability_sample": 0, "model_source": tiny_model,
        "policy": "be-safe", "data_root": tmp_path,
    }  # fmt: skip
    reports = []
    for _ in range(2):
        outcome = kedro("--pipelines", "judging", **given)
        assert outcome.exit_code == 0, outcome.output[-2000:]
        reports.append(json.loads(saved(tmp_path / "08_reporting/oracle_report.json").read_text()))
    (first,), (second,) = (report["usage"].values() for report in reports)
    assert (first["asked"], second["asked"]) == (kept(tmp_path), 0)
    assert second["stored"] >= first["asked"] > 48
    assert reports[0]["unscored"] == 0
    assert reports[0]["accuracy"] == reports[1]["accuracy"]
