"""The human oracle answers with the majority, and does not break ties."""

import pandas as pd
import pytest
from made_up_pairs import POLICY

from realignment.oracles.human import HumanOracle, read_imported_verdicts
from realignment.policy import Policy
from realignment.records import DataError, Exchange

VERDICTS = pd.DataFrame(
    [
        ("Why?", "Because.", True, "", "ann"),
        ("Why?", "Because.", True, "", "bo"),
        ("Why?", "Because.", False, "calm", "cy"),
        ("Why?", "No.", False, "calm,short", "ann"),
        ("Why?", "No.", False, "calm", "bo"),
        ("Why?", "No.", False, "", "cy"),
        ("Why?", "Hm.", True, "", "ann"),
        ("Why?", "Hm.", False, "", "bo"),
        ("Why?", "Eh.", None, "", "ann"),
        ("Why?", "Eh.", True, "", "bo"),
        ("Why?", "Oh.", None, "", "ann"),
    ],
    columns=["prompt", "response", "complies", "rules_broken", "annotator"],
).assign(policy="advice-2")


def judge_response(response, verdicts=VERDICTS):
    (judgment,) = HumanOracle.from_table(verdicts)([Exchange("Why?", response, "law")], POLICY)
    return judgment


def test_the_majority_decides_and_its_share_is_the_confidence():
    judgment = judge_response("Because.")
    assert (judgment.complies, judgment.confidence) == (True, pytest.approx(2 / 3))
    assert judgment.rules_broken == ()
    assert judgment.reason == "2 of 3 annotators"


def test_a_rule_is_broken_where_at_least_half_of_those_who_saw_a_violation_name_it():
    judgment = judge_response("No.")
    assert (judgment.complies, judgment.confidence, judgment.rules_broken) == (False, 1.0, ("calm",))


@pytest.mark.parametrize(
    ("response", "reason"),
    [("Hm.", "a tie of 1 to 1"), ("Oh.", "every annotator was unsure"), ("New.", "no person has judged")],
)
def test_a_tie_doubt_and_silence_are_unscored_with_their_reason(response, reason):
    judgment = judge_response(response)
    assert (judgment.complies, judgment.confidence) == (None, 0.0)
    assert reason in judgment.reason


def test_who_was_unsure_has_no_vote():
    assert (judge_response("Eh.").complies, judge_response("Eh.").confidence) == (True, 1.0)


def test_verdicts_under_another_policy_are_refused():
    with pytest.raises(DataError, match=r"under advice-2; found: advice-1.*review_export"):
        judge_response("No.", VERDICTS.assign(policy="advice-1"))


def test_verdicts_by_what_the_policy_said_before_an_edit_are_refused():
    edited = Policy(name="advice", version="2", text="Be bold.")
    verdicts = VERDICTS.assign(policy_digest=POLICY.fingerprint)
    assert judge_response("No.", verdicts).complies is False
    with pytest.raises(DataError, match=rf"was edited .*review.same_as={POLICY.fingerprint}"):
        HumanOracle.from_table(verdicts)([Exchange("Why?", "No.")], edited)
    mixed = pd.concat([verdicts, verdicts.assign(policy_digest=edited.fingerprint)])
    with pytest.raises(DataError, match="was edited"):
        judge_response("No.", mixed)


def test_a_table_that_names_no_text_of_the_policy_is_taken_with_a_warning(caplog):
    assert judge_response("No.").complies is False
    assert "do not say which text of the policy" in caplog.text
    caplog.clear()
    HumanOracle.from_table(VERDICTS.assign(policy_digest=POLICY.fingerprint))
    assert not caplog.text


def test_no_verdicts_are_refused_with_the_way_to_get_some():
    with pytest.raises(DataError, match=r"lacks prompt, response, complies, policy.*review_import"):
        HumanOracle.from_table(pd.DataFrame())


def test_the_newest_version_of_the_imported_verdicts_is_read(tmp_path):
    for version, table in (("2026-01-01", VERDICTS.head(1)), ("2026-01-02", VERDICTS)):
        folder = tmp_path / "verdicts.parquet" / version
        folder.mkdir(parents=True)
        table.to_parquet(folder / "verdicts.parquet")
    assert len(read_imported_verdicts(tmp_path / "verdicts.parquet")) == len(VERDICTS)
    with pytest.raises(DataError, match="No people's verdicts at"):
        read_imported_verdicts(tmp_path / "nothing.parquet")
    (tmp_path / "no_version.parquet").mkdir()
    with pytest.raises(DataError, match="No people's verdicts at"):
        read_imported_verdicts(tmp_path / "no_version.parquet")
