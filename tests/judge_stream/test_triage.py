"""Part by part comes to the same as all at once, in memory that does not grow with the file."""

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from command_line import saved
from made_up_pairs import ScriptedOracle

from realignment import intake, judging, triage
from realignment.intake.readers import read_table
from realignment.intake.shards import scan_shards
from realignment.judge_stream import judge_and_triage, read_pairs
from realignment.oracles.factory import build_oracle
from realignment.oracles.rules import RulesOracle
from realignment.parameters import IntakeParameters, JudgingParameters, TriageParameters
from realignment.policy import parse_policy, read_policy
from realignment.policy.severity import grade_pairs
from realignment.records import DataError, Disposition, HealthError, digest_table
from realignment.table_files import TableFileError, WorkFolder

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "data/01_raw/sample/pairs.jsonl"
POLICY = read_policy(ROOT / "conf/base/policies/assistant-v2.yml")
SPLITS = ("invert_pairs", "punish_pairs", "retain_pairs", "review_pairs")
RULES = JudgingParameters(oracle="rules")
AS_IT_IS = {"triage_parameters": TriageParameters(), "max_retain": None, "seed": 0}


def in_parts(source, work, *, policy=POLICY, size=50, limit=None, max_retain=None, seed=0, **judge):
    """Clean and triaged pairs, as the pipeline has them."""
    settings = JudgingParameters(**{"oracle": "rules", "chunk_size": size} | judge)
    raw, folder = scan_shards(str(source)), WorkFolder(work)
    clean = read_pairs(raw, policy, IntakeParameters(limit=limit), folder=folder, size=size, seed=seed)
    oracle, keywords = build_oracle(settings, clean.pairs), {"triage_parameters": TriageParameters()}
    result = judge_and_triage(
        clean.pairs, policy, oracle, settings, **keywords, max_retain=max_retain, seed=seed
    )
    return clean, result


def at_once(source, *, policy=POLICY, **judge):
    """What the stages make of the same file: cleaned, graded, judged, triaged."""
    raw = read_table(str(source))
    clean = intake.clean_pairs(raw, invalid="skip", max_prompt_chars=8000, long_prompts="drop")
    pairs = grade_pairs(clean.pairs, policy)
    judgments = judging.judge_pairs(
        pairs, policy, build_oracle(JudgingParameters(**{"oracle": "rules"} | judge), pairs)
    )
    return clean, pairs, judgments, triage.triage(pairs, judgments, min_confidence=0.5)


def assert_same(result, expected):
    (clean, triaged), (whole, pairs, judgments, dispositions) = result, expected
    assert triaged.pairs.digest == digest_table(pairs)
    assert triaged.judgments.digest == digest_table(judgments)
    assert clean.rejected_rows.digest == digest_table(whole.rejected_rows)
    assert clean.report == whole.report
    for disposition, table in triage.split_by_disposition(dispositions).items():
        assert triaged.splits[disposition].digest == digest_table(table), disposition
    assert triaged.triage_report == triage.report_triage(dispositions, max_punish_share=0.5)
    measured = judging.measure_oracle(pairs, judgments)
    assert {name: triaged.oracle_report[name] for name in measured} == measured


def test_what_is_left_out_or_set_aside_is_said(kedro_in_process, tmp_path, rows):
    (tmp_path / "pairs").mkdir()
    write(tmp_path / "pairs/a.jsonl", rows[:20])
    write(
        tmp_path / "pairs/b.jsonl",
        [{k: row[k] for k in ("pair_id", "prompt", "chosen")} for row in rows[20:]],
    )
    parameters = {"pairs": tmp_path / "pairs", "data_root": tmp_path / "data", "intake__limit": 25}
    done = kedro_in_process("--pipelines", "judge_stream", **parameters)
    assert done.exit_code == 0, done.error
    output = " ".join(done.output.split())
    assert "Only 25 of 30 rows are used" in output
    assert "rows were set aside" in output


@pytest.fixture
def rows():
    return [json.loads(line) for line in SAMPLE.read_text(encoding="utf-8").splitlines()[:30]]


def write(path, rows):
    path.parent.mkdir(exist_ok=True)
    if path.suffix == ".parquet":
        pd.DataFrame(rows).to_parquet(path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


# --- the same as the stages


@pytest.mark.parametrize("limited", [{}, {"intake__limit": 100}], ids=["all", "limit"])
def test_the_pipeline_leaves_what_the_stages_leave(kedro_in_process, tmp_path, limited):
    parameters = {"intake__limit": 392, "judging__chunk_size": 37, "seed": 3} | limited
    for name in ("judging,triage", "judge_stream"):
        done = kedro_in_process(
            "--pipelines", name, data_root=tmp_path / name.partition(",")[0], **parameters
        )
        assert done.exit_code == 0, done.error
    stages, stream = tmp_path / "judging", tmp_path / "judge_stream"
    for entry in (
        "02_intermediate/judging_manifest.json", "03_primary/triage_manifest.json",
        "08_reporting/intake_report.json", "08_reporting/oracle_report.json",
        "08_reporting/triage_report.json",
    ):  # fmt: skip
        assert json.loads(saved(stream / entry).read_text()) == json.loads(saved(stages / entry).read_text())
    for name in ("rejected_rows.csv", "policy_diff.csv"):
        (one,), (other,) = stream.glob(f"*/{name}/*/{name}"), stages.glob(f"*/{name}/*/{name}")
        assert one.read_bytes() == other.read_bytes()
    for split in SPLITS:
        tables = [pd.read_parquet(saved(data / f"03_primary/{split}.parquet")) for data in (stream, stages)]
        one, other = (table.astype(object).where(table.notna(), None) for table in tables)
        pd.testing.assert_frame_equal(one, other)
    assert not list((stream / "06_models/unfinished/streams").iterdir())


def test_the_later_stages_go_on_from_what_it_leaves(kedro_in_process, tmp_path):
    done = kedro_in_process(
        "--pipelines", "judge_stream,corrections,gold", data_root=tmp_path, streaming__max_retain=15
    )
    assert done.exit_code == 0, done.error
    report = json.loads(saved(tmp_path / "08_reporting/triage_report.json").read_text())
    assert report["counts"]["RETAIN"] > report["retain_kept"] == 15
    parts = ("held_out_pairs", "gold_batch", "training_pairs")
    used = [pd.read_parquet(saved(tmp_path / f"05_model_input/{part}.parquet")) for part in parts]
    assert (pd.concat(used)["disposition"] == "RETAIN").sum() == 15
    done = kedro_in_process("--pipelines", "audit", data_root=tmp_path, audit__size=20)
    assert done.exit_code == 0, done.error


@pytest.mark.parametrize("size", [1, 7, 1000])
@pytest.mark.parametrize("name", ["pairs.jsonl", "pairs.parquet"])
def test_rejected_and_repeated_rows_are_the_same_wherever_they_are(tmp_path, rows, name, size):
    bad = [
        rows[0] | {"chosen": " "}, rows[3], rows[4] | {"prompt": "Other?"}, rows[5] | {"pair_id": "new"},
        rows[6] | {"pair_id": "long", "prompt": "long " * 2000}, rows[6] | {"pair_id": "long"},
    ]  # fmt: skip
    path = write(tmp_path / name, [*rows, *bad, *bad[:2]])
    clean, _ = result = in_parts(path, tmp_path / "work", size=size)
    assert clean.report["rejected"] == 8
    assert_same(result, at_once(path))


def test_a_field_that_only_a_later_row_has_counts_for_all(tmp_path, rows):
    late = rows[9] | {"chosen_severity": 2, "chosen_categories": ["Theft"], "extra": 1}
    plain = [{k: v for k, v in row.items() if not k.endswith("_complies")} for row in rows[:9]]
    path = write(tmp_path / "pairs.jsonl", [*plain, late])
    clean, _ = result = in_parts(path, tmp_path / "work", size=3)
    assert "chosen_complies" in clean.pairs.columns
    assert_same(result, at_once(path))


TIERS = parse_policy(
    {
        "name": "graded", "version": "1", "text": "t",
        "tiers": [
            {"id": "theft", "description": "Theft.", "categories": ["Theft"], "max_severity": 0},
            {"id": "rest", "description": "Other.", "categories": ["Fraud"], "max_severity": 1},
        ],
    },
    "test",
)  # fmt: skip


def graded(number, better):
    """PKU-SafeRLHF's columns; responses recur with other grades, and some have none."""
    sides = {}
    for k in (0, 1):
        grade = (number * 3 + k * 5) % 7
        harm = {"Theft": grade % 3 == 1, "Fraud": grade % 3 == 2}
        sides |= {
            f"response_{k}": f"answer {(number + k) % 6}", f"is_response_{k}_safe": grade % 3 == 0,
            f"response_{k}_harm_category": harm, f"response_{k}_severity_level": grade % 4 if grade else None,
        }  # fmt: skip
    return {"prompt": f"question {number % 23}", "better_response_id": better, **sides}


@pytest.mark.parametrize("size", [4, 1000])
def test_tiers_and_labels_are_those_of_the_whole_table(tmp_path, size):
    path = write(tmp_path / "pku.jsonl", [graded(n, n % 2) for n in range(70)])
    settings = {"policy": TIERS, "oracle": "labels", "max_unscored": 1.0}
    _, triaged = result = in_parts(path, tmp_path / "work", size=size, **settings)
    assert_same(result, at_once(path, **settings))
    broken = triaged.triage_report["by_rule"]
    assert {"theft", "rest"} <= set(broken)
    assert triaged.oracle_report["unscored"] > 0, "labels that contradict leave responses unscored"


def test_categories_are_missed_only_if_no_part_has_them(tmp_path):
    path = write(tmp_path / "pku.jsonl", [graded(n, 0) for n in range(8)])
    other = parse_policy(TIERS.model_dump(exclude_none=True) | {"tiers": [
        {"id": "arson", "description": "Arson.", "categories": ["Arson"], "max_severity": 0},
    ]}, "test")  # fmt: skip
    with pytest.raises(DataError, match=r"names \(Arson\); the data has Fraud, Theft"):
        in_parts(path, tmp_path / "work", size=2, policy=other, oracle="labels")


def test_labels_are_asked_for_where_there_are_none(tmp_path, rows):
    path = write(
        tmp_path / "pairs.jsonl", [{k: row[k] for k in ("prompt", "chosen", "rejected")} for row in rows]
    )
    with pytest.raises(DataError, match="the pairs give no label"):
        in_parts(path, tmp_path / "work", oracle="labels")


# --- doubt


def test_too_many_unscored_responses_stop_as_soon_as_it_is_certain(tmp_path):
    raw, folder, oracle = scan_shards(str(SAMPLE)), WorkFolder(tmp_path / "work"), ScriptedOracle({})
    clean = read_pairs(raw, POLICY, IntakeParameters(), folder=folder, size=50, seed=0)
    settings = JudgingParameters(oracle="rules", chunk_size=20, max_unscored=0.25)
    with pytest.raises(HealthError, match=r"left \d+ of 784 responses unscored"):
        judge_and_triage(clean.pairs, POLICY, oracle, settings, **AS_IT_IS)
    assert len(oracle.asked) < 784 / 2


class Fickle(RulesOracle):
    """Answers as the rules say the first 784 times that it is asked, and the opposite after that."""

    asked = 0

    def __call__(self, exchanges, policy):
        judgments = super().__call__(exchanges, policy)
        before, Fickle.asked = Fickle.asked, Fickle.asked + len(exchanges)
        turned = [type(j)(not j.complies, 1.0, oracle=j.oracle) for j in judgments]
        return judgments if before < 784 + 47 else turned


def test_an_oracle_that_does_not_repeat_itself_stops_the_run(tmp_path):
    raw, folder = scan_shards(str(SAMPLE)), WorkFolder(tmp_path / "work")
    clean = read_pairs(raw, POLICY, IntakeParameters(), folder=folder, size=50, seed=0)
    corrections = sum(part["correction"].notna().sum() for part in clean.pairs.parts())
    Fickle.asked = 47 - corrections
    with pytest.raises(HealthError, match="repeats only 0% of its verdicts"):
        judge_and_triage(clean.pairs, POLICY, Fickle(), RULES, **AS_IT_IS)


# --- RETAIN pairs


def pair_ids_of(result, disposition=Disposition.RETAIN):
    return [pair_id for part in result.splits[disposition].parts() for pair_id in part["pair_id"]]


def test_the_bound_on_retain_pairs_draws_the_same_whatever_the_parts_are(tmp_path):
    whole = in_parts(SAMPLE, tmp_path / "a")[1]
    draws = [in_parts(SAMPLE, tmp_path / "a", size=size, max_retain=40)[1] for size in (9, 1000)]
    assert pair_ids_of(draws[0]) == pair_ids_of(draws[1])
    assert len(pair_ids_of(draws[0])) == 40
    everyone = pair_ids_of(whole)
    assert pair_ids_of(draws[0]) == [pair_id for pair_id in everyone if pair_id in set(pair_ids_of(draws[0]))]
    assert draws[0].triage_report == whole.triage_report | {"retain_kept": 40}
    for disposition in set(Disposition) - {Disposition.RETAIN}:
        assert draws[0].splits[disposition].digest == whole.splits[disposition].digest
    pairs = [pair_id for part in draws[0].pairs.parts() for pair_id in part["pair_id"]]
    assert sorted(pairs) == sorted(pair_id for d in Disposition for pair_id in pair_ids_of(draws[0], d))
    assert draws[0].judgments.digest == whole.judgments.digest


def test_another_seed_draws_other_retain_pairs_and_a_larger_draw_contains_the_smaller(tmp_path):
    one, more, other = (
        set(pair_ids_of(in_parts(SAMPLE, tmp_path / "a", max_retain=n, seed=seed)[1]))
        for n, seed in ((40, 0), (60, 0), (40, 1))
    )
    assert one < more
    assert one != other


def test_a_bound_above_all_retain_pairs_changes_nothing(tmp_path):
    whole, bound = (in_parts(SAMPLE, tmp_path / "a", max_retain=n)[1] for n in (None, 10_000))
    assert bound.pairs.digest == whole.pairs.digest
    assert bound.triage_report == whole.triage_report


# --- what goes wrong


def test_a_file_without_a_usable_row_is_an_error(tmp_path, rows):
    path = write(tmp_path / "pairs.jsonl", [row | {"chosen": ""} for row in rows])
    with pytest.raises(DataError, match=r"None of the 30 rows can be used: \{'chosen: empty text': 30\}"):
        in_parts(path, tmp_path / "work")
    assert not list((tmp_path / "work").iterdir())


@pytest.fixture
def small_files():
    """No file may grow beyond 64 KiB, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path, rows, small_files):
    rng = np.random.default_rng(0)
    many = [row | {"pair_id": str(n), "chosen": rng.bytes(8000).hex()} for n, row in enumerate(rows)]
    path = tmp_path / "pairs.parquet"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    write(path, many)
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    with pytest.raises(TableFileError, match=r"could not be written.*GiB are free there.*Make room"):
        in_parts(path, tmp_path / "work")
    assert not list((tmp_path / "work").iterdir())


LEFT = """
import sys, time
from pathlib import Path
from realignment.table_files import WorkFolder
folder = WorkFolder(Path(sys.argv[1]))
(folder.path / "half.parquet").write_bytes(b"half")
print(folder.path, flush=True)
time.sleep(60)
"""


def test_what_a_killed_run_leaves_is_removed_and_what_a_live_one_has_is_not(tmp_path):
    run = subprocess.Popen(
        [sys.executable, "-c", LEFT, str(tmp_path)], stdout=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
    )  # fmt: skip
    left = Path(run.stdout.readline().strip())
    mine = WorkFolder(tmp_path)
    assert (left / "half.parquet").exists(), "the folder of a run that is alive was removed"
    run.kill()
    run.wait()
    another = WorkFolder(tmp_path)
    assert not left.exists()
    assert {mine.path, another.path} == {path for path in tmp_path.iterdir() if path.is_dir()}


# --- memory

# Not `ru_maxrss`: Linux hands a parent's own peak, here that of pytest, to every child that it starts.
PEAK = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from realignment import table_files
from test_triage import in_parts
table_files._GROUP_BYTES = 2**18  # as full after 6,000 pairs as it ever is
in_parts(sys.argv[1], Path(sys.argv[2]), size=1000, max_retain=100)
status = Path("/proc/self/status").read_text().splitlines()
print(next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM:")))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak memory as Linux counts it")
@pytest.mark.parametrize("name", ["pairs.jsonl", "pairs.parquet"])
def test_ten_times_the_pairs_need_no_more_memory(tmp_path, rows, name):
    peaks = []
    for copies in (200, 2000):
        many = [
            row | {"pair_id": f"{row['pair_id']}-{n}", "prompt": f"{row['prompt']} ({n})" + " please" * 400}
            for n in range(copies)
            for row in rows
        ]  # the larger table, held whole, adds 230 MiB or more
        path = write(tmp_path / str(copies) / name, many)
        done = subprocess.run(
            [sys.executable, "-c", PEAK, str(path), str(tmp_path / "work"), str(ROOT / "tests/judge_stream")],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        peaks.append(float(done.stdout))
    assert peaks[1] - peaks[0] < 130, f"{peaks} MiB for 6,000 and 60,000 pairs"
