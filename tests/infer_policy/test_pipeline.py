"""The pipeline by the real command: from pairs to a policy that `realign` takes as the old one."""

import json

import pandas as pd
import pytest
from command_line import saved

from realignment.policy import read_policy


@pytest.fixture(scope="module")
def data(kedro_in_process, tmp_path_factory):
    data = tmp_path_factory.mktemp("inferred")
    done = kedro_in_process("--pipelines", "infer_policy", data_root=data, intake__limit=392)
    assert done.exit_code == 0, done.error
    return data


def entry(data, name):
    return saved(data / "08_reporting" / name)


def test_the_old_policy_of_the_sample_is_recognised(data):
    """`assistant-v1`: decisive advice, no hedging, no referral."""
    principles = pd.read_csv(entry(data, "principles.csv"))
    assert {"hedging-less", "referral-less", "directive-more"} <= set(principles["id"])
    report = json.loads(entry(data, "principles_report.json").read_text())
    assert report["accuracy"]["interval"][0] > 0.75
    policy = read_policy(entry(data, "inferred_policy.yml"))
    assert [rule.id for rule in policy.rules] == list(principles["id"])
    difference = pd.read_csv(entry(data, "inferred_policy_diff.csv"))
    assert set(difference["change"]) == {"added", "removed"}


def test_the_inferred_policy_is_the_old_one_by_its_name_and_by_its_path(kedro_in_process, data):
    newest = entry(data, "inferred_policy.yml")
    differences = []
    for old_policy in ("inferred", newest):
        done = kedro_in_process("--pipelines", "judging", data_root=data, old_policy=old_policy)
        assert done.exit_code == 0, done.error
        differences.append(pd.read_csv(entry(data, "policy_diff.csv")))
    pd.testing.assert_frame_equal(*differences)
    removed = differences[0].query("change == 'removed'")
    assert set(removed["rule"]) == {rule.id for rule in read_policy(newest).rules}


def test_before_anything_is_inferred_the_name_is_said_to_be_missing(kedro_in_process, tmp_path):
    done = kedro_in_process("--pipelines", "judging", data_root=tmp_path, old_policy="inferred")
    assert done.exit_code == 1
    assert "No policy file" in done.error
    assert "infer_policy" in done.error
