"""Candidates: what people wrote, whom a machine writes for, and what it is told."""

import json

import pandas as pd
import pytest
from made_up_pairs import POLICY, make_pairs

from realignment.corrections import (
    check_origin,
    choose_pairs_to_correct,
    collect_people_candidates,
    write_candidates,
)
from realignment.corrections.candidates import (
    CANDIDATE_COLUMNS,
    PEOPLE,
    CandidateError,
    build_instructed_chat,
)
from realignment.corrections.writers import Draft
from realignment.policy import parse_policy

PAIRS = make_pairs(
    {"correction": "better 0"}, {"correction": "refused 1"}, {}, {}, {"correction": "of a kept pair"}
)
PUNISH = PAIRS.iloc[:4].assign(correction=["better 0", None, None, None], disposition="PUNISH")
NOTHING = pd.DataFrame()


class Echo:
    """Answers with what it was asked, and how often it was asked that."""

    name, model = "echo", "echo-1"

    def __init__(self):
        self.chats = []

    def __call__(self, chats):
        self.chats += chats
        return [
            Draft(f"{chat[-1]['content']} {number}", number % 2 == 0) for number, chat in enumerate(chats)
        ]


def written(*rows):
    return pd.DataFrame(rows, columns=["pair_id", "correction", "writer"])


def test_people_candidates_are_the_column_then_the_file():
    file = written(("p1", " by Ann ", "Ann"), ("p1", "again", None), ("p4", "not needed", "Ann"))
    table = collect_people_candidates(PUNISH, PAIRS, file)
    rows = table[["pair_id", "candidate", "model", "response"]].to_numpy().tolist()
    assert rows == [
        ["p0", 0, PEOPLE, "better 0"], ["p1", 0, PEOPLE, "refused 1"], ["p1", 1, "Ann", "by Ann"],
        ["p1", 2, "a file", "again"],
    ]  # fmt: skip
    assert set(table["writer"]) == {PEOPLE}
    assert table["complete"].all()


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (pd.DataFrame({"pair": ["p0"], "correction": ["x"]}), "lacks pair_id; found pair, correction"),
        (written(("p9", "x", "Ann")), "has 1 pair_id that no pair has"),
        (written(("p0", 7, "Ann")), "not a text"),
    ],
)
def test_a_file_of_corrections_that_cannot_be_used_is_refused(file, message):
    with pytest.raises(CandidateError, match=message):
        collect_people_candidates(PUNISH, PAIRS, file)


def test_a_machine_writes_for_pairs_that_people_left_and_for_a_sample_of_the_others():
    people = collect_people_candidates(PUNISH, PAIRS, written(("p2", "from a file", "Ann")))
    assert choose_pairs_to_correct(PUNISH, people, sample=0, seed=0)["pair_id"].tolist() == ["p1", "p3"]
    assert choose_pairs_to_correct(PUNISH, people, sample=9, seed=0)["pair_id"].tolist() == [
        "p0",
        "p1",
        "p2",
        "p3",
    ]
    drawn = {tuple(choose_pairs_to_correct(PUNISH, people, sample=1, seed=s)["pair_id"]) for s in range(8)}
    assert drawn == {("p0", "p1", "p3"), ("p1", "p2", "p3")}


def test_every_candidate_says_who_wrote_it_under_which_policy():
    table = write_candidates(PUNISH.iloc[:2], POLICY, Echo(), samples=3, max_words=60)
    assert list(table.columns) == list(CANDIDATE_COLUMNS)
    assert table["pair_id"].tolist() == ["p0"] * 3 + ["p1"] * 3
    assert table["candidate"].tolist() == [0, 1, 2] * 2
    assert table["response"].tolist() == [
        f"Prompt {i}? {n}" for i, n in ((0, 0), (0, 1), (0, 2), (1, 3), (1, 4), (1, 5))
    ]
    assert set(table["policy"]) == {POLICY.digest}
    assert (set(table["writer"]), set(table["model"])) == ({"echo"}, {"echo-1"})
    assert table["complete"].tolist() == [True, False] * 3


def test_the_writer_reads_the_policy_and_then_the_chat():
    first, last = build_instructed_chat("Why?", None, POLICY, max_words=60)
    assert first["role"] == "system"
    assert POLICY.text in first["content"]
    assert "at most 60 words" in first["content"]
    assert "Its rules" not in first["content"]
    assert last == {"role": "user", "content": "Why?"}


def test_the_writer_reads_every_rule():
    rules = [{"id": str(n), "description": f"Rule {n}.", "check": {"kind": "judged"}} for n in range(3)]
    policy = parse_policy({"name": "a", "version": "1", "text": "Be kind.", "rules": rules}, source="test")
    first, _ = build_instructed_chat("Why?", None, policy, max_words=60)
    assert "Its rules:\n\n- Rule 0.\n- Rule 1.\n- Rule 2.\n" in first["content"]


def test_a_system_turn_of_the_data_stays_below_the_policy():
    turns = [{"role": "system", "content": "You are Bo."}, {"role": "user", "content": "Hi"}]
    chat = build_instructed_chat("ignored", json.dumps(turns), POLICY, max_words=60)
    assert len(chat) == 2
    assert chat[0]["content"].endswith("\n\nYou are Bo.")
    assert POLICY.text in chat[0]["content"]


def test_candidates_of_another_run_are_refused():
    table = write_candidates(PUNISH, POLICY, Echo(), samples=1, max_words=60)
    check_origin(table, PUNISH, POLICY.digest)
    with pytest.raises(CandidateError, match="1 of their pairs are not among the 3"):
        check_origin(table, PUNISH.iloc[1:], POLICY.digest)
    with pytest.raises(CandidateError, match="1 other policies"):
        check_origin(table, PUNISH, "another")
