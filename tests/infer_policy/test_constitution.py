"""Propose, merge, vote, rank: against a server over real HTTP that knows what was planted."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from servers import Script, completion, scripted

from realignment.infer_policy import infer_principles
from realignment.infer_policy.constitution import (
    Constitution,
    ConstitutionError,
    merge_principles,
    rank_principles,
)
from realignment.infer_policy.replies import read_principles, read_votes
from realignment.parameters import PrinciplesParameters

SHORT, QUESTION, POLITE = "The response is short.", "The response asks a question.", "The response is polite."


def make_choices(n=120, *, seed=0):
    """The shorter response was chosen nine times of ten; questions and politeness are drawn at random."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(n):
        words, more = rng.integers(5, 20), rng.integers(3, 10)
        texts = [f"w{number} " * words, f"w{number} " * (words + more)]
        texts = [text + "? " * int(rng.random() < 0.5) + "please" * int(rng.random() < 0.5) for text in texts]
        texts = texts if rng.random() < 0.9 else texts[::-1]
        rows.append((f"Prompt {number}", *texts))
    return pd.DataFrame(rows, columns=["prompt", "chosen", "rejected"])


MEASURES = {SHORT: lambda text: -len(text.split()), QUESTION: lambda text: text.count("?"),
            POLITE: lambda text: text.count("please")}  # fmt: skip


def vote(content, listed):
    first, second = re.search(
        r"RESPONSE A\n(.*)\n\nRESPONSE B\n(.*)\n\nPRINCIPLES", content, re.DOTALL
    ).groups()
    votes = {}
    for number, text in listed:
        one, other = (MEASURES[text](response) for response in (first, second))
        votes[number] = "N" if one == other else "A" if one > other else "B"
    return votes


def honest(body, attempt):
    """Proposes all three, in words of its own, and votes as the principles say."""
    content = body["messages"][-1]["content"]
    if "PRINCIPLES" not in content:
        return completion("Here you are:\n```json\n" + json.dumps({"principles": list(MEASURES)}) + "\n```")
    listed = re.findall(r"^(\d+)\. (.+)$", content.rpartition("PRINCIPLES")[2], re.MULTILINE)
    return completion(json.dumps(vote(content, listed)))


def run(script, pairs, **constitution):
    with scripted(script) as url:
        parameters = PrinciplesParameters(
            method="chat", chat={"base_url": url, "model": "m"}, constitution=constitution
        )
        return infer_principles(pairs, parameters, seed=3)


def test_the_planted_principle_is_found_and_the_others_are_not():
    explanation = run(Script(honest), make_choices())
    (row,) = explanation.principles.to_dict("records")
    assert row["principle"] == SHORT
    assert row["id"] == "p1-is-short" or row["id"].endswith("is-short")
    assert row["support"] == 1
    assert 0.8 < row["low"] < row["agreement"] < row["high"]
    assert explanation.report | {"kept": 1, "selected": 3, "n": 120} == explanation.report


def test_turning_every_choice_around_leaves_nothing_that_explains_it():
    """A principle that predicts the wrong response is none: its opposite would have to be proposed."""
    pairs = make_choices().rename(columns={"chosen": "rejected", "rejected": "chosen"})
    assert run(Script(honest), pairs).principles.empty


def test_a_voter_that_always_says_a_explains_nothing():
    def lazy(body, attempt):
        content = body["messages"][-1]["content"]
        return (
            completion('{"1": "A", "2": "A", "3": "A"}') if "PRINCIPLES" in content else honest(body, attempt)
        )

    explanation = run(Script(lazy), make_choices())
    assert explanation.principles.empty
    assert explanation.report["unread_votes"] == 0


def test_the_voter_is_not_told_which_response_was_chosen():
    script, pairs = Script(honest), make_choices()
    run(script, pairs, proposing_pairs=10, pairs_per_proposal=5, voting_pairs=40)
    proposing = [b for b in script.bodies if "PRINCIPLES" not in b["messages"][-1]["content"]]
    voting = [
        b["messages"][-1]["content"] for b in script.bodies if "PRINCIPLES" in b["messages"][-1]["content"]
    ]
    assert (len(proposing), len(voting)) == (2, 40)
    assert not any("PREFERRED" in content for content in voting)
    chosen = set(pairs["chosen"].str.strip())
    first = [
        re.search(r"RESPONSE A\n(.*)\n\nRESPONSE B", content, re.DOTALL)[1].strip() in chosen
        for content in voting
    ]
    assert 8 <= sum(first) <= 32


def test_votes_that_cannot_be_read_are_counted_and_left_out():
    def mumbling(body, attempt):
        content = body["messages"][-1]["content"]
        spoils = "PRINCIPLES" in content and int(re.search(r"Prompt (\d+)", content)[1]) % 4 == 0
        return completion("I would say A.") if spoils else honest(body, attempt)

    explanation = run(Script(mumbling), make_choices())
    assert explanation.report["unread_votes"] == 3 * 30
    assert explanation.principles.iloc[0]["pairs"] == 90


def test_without_one_readable_proposal_the_error_says_what_came():
    with pytest.raises(ConstitutionError, match=r"None of 20 replies .*'I do not know.'"):
        run(Script(lambda body, _: completion("I do not know.")), make_choices())


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ('{"principles": ["The response is short."]}', [SHORT]),
        ('Sure!\n```json\n{"principles": ["The  response\\nis short."]}\n```', [SHORT]),
        ('["The response is short.", 7, null, "Yes"]', [SHORT]),
        ('{"principles": "The response is short."}', []),
        ('{"principles": ["' + "word " * 61 + '"]}', []),
        ('{"principles": ["The response', []),
        ("The response is short.", []),
        ("", []),
    ],
)
def test_proposals_are_read_strictly(reply, expected):
    assert read_principles(reply) == expected


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ('{"1": "A", "2": "N", "3": "B"}', {1: "A", 2: "N", 3: "B"}),
        ('Votes: {"1": "A"} as asked', {1: "A"}),
        ('{"1": "a", "2": "both", "3": null, "4": "A", "x": "A"}', {}),
        ('["A", "B", "N"]', {}),
        ("1: A, 2: B", {}),
        ('{"0": "A", "-1": "A", "1": ["A"]}', {}),
    ],
)
def test_votes_are_read_strictly(reply, expected):
    assert read_votes(reply, 3) == expected


def test_merging_keeps_one_of_each_kind_the_most_frequent_first():
    proposals = ["The response is short.", "The response is very short.", "The response is short."]
    proposals += ["Gives concrete numbers and figures.", "Gives numbers and figures."]
    first, second = merge_principles(proposals, 2)
    assert "short" in first
    assert "numbers" in second
    assert merge_principles(["one only"], 5) == ["one only"]
    assert len(merge_principles(proposals, 99)) == 4


def test_support_and_agreement_by_hand():
    favours = np.array([[1, 0], [1, np.nan], [-1, 0], [0, 0], [1, 0]], dtype=float)
    first, second = rank_principles(["It is so.", "It is not."], favours).to_dict("records")
    assert (first["applies"], first["pairs"], first["support"], first["agreement"]) == (4, 5, 0.8, 0.75)
    assert (second["applies"], second["pairs"], second["support"]) == (0, 4, 0)
    assert np.isnan(second["agreement"])


def test_long_texts_are_cut_so_that_a_prompt_has_an_end():
    pairs = make_choices(40).assign(chosen="w " * 9000)
    constitution = Constitution(5, 5, 3, 5, 5, 0.03, 0)
    seen = []

    def answer(requests):
        seen.extend(requests)
        raise ConstitutionError("enough")

    with pytest.raises(ConstitutionError, match="enough"):
        constitution.propose(pairs, answer)
    assert len(seen[0].messages[-1]["content"]) < 5 * 4000
