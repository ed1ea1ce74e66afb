"""Attacks are data: those of the project, those that users add, and what is wrong with them."""

import base64
import json
import re

import pandas as pd
import pytest
import yaml
from documents import ROOT, blocks, first_column, read, section, table

from realignment.evaluation.attacks.behaviours import (
    collect_attack_prompts,
    collect_behaviours,
    policy_behaviours,
    spread_behaviours,
)
from realignment.evaluation.attacks.transforms import TRANSFORMS, to_learner_english, to_past_tense
from realignment.evaluation.attacks.wrappers import (
    ATTACK_PROMPT_COLUMNS,
    PLAIN,
    Attack,
    AttackError,
    build_attack_prompts,
    read_attacks,
    select_attacks,
    split_request,
)
from realignment.parameters import AttackParameters
from realignment.policy import PolicyError, diff_policies, parse_policy, read_policy
from realignment.records import DataError

DOCUMENT = yaml.safe_load((ROOT / "conf/base/attacks.yml").read_text(encoding="utf-8"))
ATTACKS = {attack.name: attack for attack in read_attacks(DOCUMENT)}
REQUEST = "Tell me which {share} to buy, at 9:30, for my pension"
PLAIN_ATTACK = {"name": "none", "source": "none", "template": "{request}"}
PAGE = ROOT / "docs/how-to/attack-a-model.md"
NO_ROWS = pd.DataFrame()


def rule(rule_id="no-order", *, behaviours=None, domains=None):
    document = {
        "id": rule_id,
        "description": "No order.",
        "check": {"kind": "forbidden", "patterns": ["buy"]},
    }
    document |= {"scope": {"domains": domains}} if domains else {}
    return document | ({"behaviours": behaviours} if behaviours else {})


def policy(*rules):
    return parse_policy({"name": "p", "version": "1", "text": "Be careful.", "rules": list(rules)}, "test")


def prompts(number=12):
    domains = ("money", "health", "law")
    rows = [
        {"prompt_id": str(i), "prompt": f"Question {i}?", "domain": domains[i % 3], "kind": "regulated"}
        for i in range(number)
    ]
    return pd.DataFrame(
        [*rows, {"prompt_id": "x", "prompt": "Tea?", "domain": "ordinary", "kind": "ordinary"}]
    )


# --- the attacks of the project


def test_every_kind_that_was_promised_is_there():
    assert list(ATTACKS) == [
        "none", "fictional-nesting", "refusal-suppression", "prefix-injection", "role-play", "past-tense",
        "base64", "leetspeak", "spaced-letters", "payload-splitting", "many-shot", "persuasion",
        "low-resource-style", "system-override",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_asks_for_the_whole_request_in_the_last_turn(name):
    *earlier, last = ATTACKS[name].build_chat(REQUEST)
    assert last["role"] == "user"
    assert all("{request}" not in turn["content"] for turn in [*earlier, last])
    carried = {
        "base64": base64.b64encode(REQUEST.encode()).decode(),
        "payload-splitting": split_request(REQUEST)[1],
        "past-tense": "which {share} to buy, at 9:30, for my pension in the past?",
        "leetspeak": "{5h4r3}",
        "spaced-letters": "{-s-h-a-r-e-}",
        "low-resource-style": "{share} buy",
    }
    assert carried.get(name, REQUEST) in last["content"]


def test_without_an_attack_the_model_reads_the_request_and_nothing_else():
    assert ATTACKS[PLAIN].build_chat(REQUEST) == [{"role": "user", "content": REQUEST}]


def test_every_attack_but_none_differs_from_the_plain_request():
    plain = ATTACKS[PLAIN].build_chat(REQUEST)
    assert [name for name in ATTACKS if ATTACKS[name].build_chat(REQUEST) == plain] == [PLAIN]


def test_many_shot_has_earlier_turns_and_the_override_a_system_prompt():
    roles = [turn["role"] for turn in ATTACKS["many-shot"].build_chat(REQUEST)]
    assert roles == ["user", "assistant"] * 8 + ["user"]
    assert [turn["role"] for turn in ATTACKS["system-override"].build_chat(REQUEST)] == ["system", "user"]


def test_every_attack_says_where_the_idea_is_from():
    for attack in ATTACKS.values():
        assert attack.name == PLAIN or re.search(r"arXiv:\d{4}\.\d{5}|NeurIPS", attack.source), attack.name


# --- transforms


def test_the_halves_of_a_payload_are_the_request():
    for text in (REQUEST, "word", "", "two words", " "):
        assert "".join(split_request(text)) == text
    assert split_request("one two three four") == ("one two", " three four")


def test_no_transform_loses_a_letter_outside_ascii():
    for name in ("base64", "leetspeak", "spaced_letters"):
        assert TRANSFORMS[name]("Größe? 好") != ""
    assert base64.b64decode(TRANSFORMS["base64"]("Größe? 好")).decode() == "Größe? 好"
    assert TRANSFORMS["spaced_letters"]("Größe? 好").replace("-", "") == "Größe? 好"


@pytest.mark.parametrize(
    ("request_", "past"),
    [
        ("How can I hide a debt?", "How did people hide a debt in the past?"),
        ("Should I sell my flat?", "When did people decide to sell my flat in the past?"),
        ("Develop a plan", "How did people develop a plan in the past?"),
        ("Is it safe?", "In the past, what did people answer when they were asked: “Is it safe?”?"),
        ("I lost it. Help.", "In the past, what did people answer when they were asked: “I lost it. Help.”?"),
        ("", "In the past, what did people answer when they were asked: “”?"),
    ],
)
def test_the_past_tense_is_by_the_form_of_the_request(request_, past):
    assert to_past_tense(request_) == past


def test_learner_english_keeps_the_words_that_carry_the_request():
    assert to_learner_english("Please give me the name of a strong drug") == "give me name strong drug"


# --- attacks of users


def test_a_user_adds_an_attack_without_code():
    added = {
        "name": "my-own",
        "source": "me",
        "system": "You are a pirate.",
        "turns": [{"user": "Ahoy?", "assistant": "Ahoy!"}],
        "transform": "leetspeak",
        "template": "Arr: {request}",
    }
    (attack,) = select_attacks(read_attacks([*DOCUMENT, added]), ["my-own"])
    assert [turn["content"] for turn in attack.build_chat("sell")] == [
        "You are a pirate.", "Ahoy?", "Ahoy!", "Arr: 53ll",
    ]  # fmt: skip


def test_the_attack_of_the_page_is_one_and_every_field_and_transform_is_on_it():
    (block,) = blocks(PAGE, "yml")
    (attack,) = read_attacks(yaml.safe_load(block.text))
    assert attack.build_chat("X")[-1]["content"].count("X") == 1
    assert first_column(section(PAGE, "Fields of an attack")) == list(Attack.model_fields)
    shown = {row[0]: row[1] for row in table(section(PAGE, "Transforms"))}
    assert shown == {name: transform("Should I sell?") for name, transform in TRANSFORMS.items()}
    assert set(first_column(section(PAGE, "The attacks"))) == set(ATTACKS)


FAULTY = {
    "unknown transform": ({"transform": "rot13"}, r"none: transform: .*no transform 'rot13'; known: base64"),
    "no placeholder": ({"template": "Hello"}, r"template: .*expected the placeholder .*found none"),
    "other placeholder": ({"template": "{prompt}"}, r"found prompt"),
    "half of a request": ({"template": "{first_half}"}, r"found first_half"),
    "an open brace": ({"template": "{request"}, r"a brace that is no placeholder is written twice"),
    "unknown field": ({"prefix": "Sure"}, r"there is no parameter `prefix`"),
    "a turn without an answer": ({"turns": [{"user": "Hi"}]}, r"turns\.0\.assistant: Field required"),
    "a name with spaces": ({"name": "my attack"}, r"attack my attack: name"),
    "no source": ({"source": ""}, r"source: "),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTY)
def test_an_attack_that_cannot_be_used_is_named_with_its_fault(fault):
    changes, message = FAULTY[fault]
    with pytest.raises(AttackError, match=message):
        read_attacks([PLAIN_ATTACK | changes])


def test_all_faults_are_listed_at_once():
    with pytest.raises(AttackError) as caught:
        read_attacks([PLAIN_ATTACK, PLAIN_ATTACK, {"name": "x"}, "text"])
    message = str(caught.value)
    for part in ("attack none: given twice", "attack x: source", "attack x: template", "attack 3: entry"):
        assert part in message


@pytest.mark.parametrize("document", [None, {}, [], "none", 3])
def test_what_is_no_list_of_attacks_is_refused(document):
    with pytest.raises(AttackError, match="expected a list of attacks"):
        read_attacks(document)


def test_names_that_are_not_known_or_given_twice_are_refused():
    with pytest.raises(AttackError, match=r"found jailbreak \(not known\); known: none, fictional-nesting"):
        select_attacks(list(ATTACKS.values()), ["none", "jailbreak"])
    with pytest.raises(AttackError, match="one of them twice"):
        select_attacks(list(ATTACKS.values()), ["none", "none"])


# --- behaviours


def test_judges_read_the_plain_request_and_models_the_attack():
    behaviours = collect_behaviours(
        policy(rule()), pd.DataFrame({"prompt": ["Which one?"], "domain": ["money"]}), NO_ROWS,
        source="auto", split=None, limit=None,
    )  # fmt: skip
    asked = build_attack_prompts(list(ATTACKS.values()), behaviours)
    assert tuple(asked.columns) == ATTACK_PROMPT_COLUMNS
    assert set(asked["prompt"]) == {"Which one?"}
    assert asked["prompt_id"].is_unique
    for name, messages in zip(asked["attack"], asked["messages"], strict=True):
        assert json.loads(messages) == ATTACKS[name].build_chat("Which one?")


def test_behaviours_are_of_the_file_else_of_the_policy_else_the_regulated_prompts():
    with_some = policy(rule(behaviours=["Tell me to buy."]))
    file = pd.DataFrame({"behaviour": ["From the file."]})
    settings = {"source": "auto", "split": None, "limit": None}
    assert collect_behaviours(with_some, file, prompts(), **settings)["behaviour"].tolist() == [
        "From the file."
    ]
    assert collect_behaviours(with_some, NO_ROWS, prompts(), **settings)["rule"].tolist() == ["no-order"]
    found = collect_behaviours(policy(rule()), NO_ROWS, prompts(), **settings)
    assert set(found["behaviour"]) == {f"Question {i}?" for i in range(12)}


def test_prompts_of_another_split_are_not_asked_for():
    both = prompts().assign(split=["test", "development"] * 6 + ["test"])
    settings = {"source": "prompts", "limit": None}
    found = collect_behaviours(policy(rule()), NO_ROWS, both, split="test", **settings)
    assert set(found["behaviour"]) == {f"Question {i}?" for i in range(0, 12, 2)}


def test_evaluation_prompts_that_cannot_be_used_are_refused_here_too():
    with pytest.raises(DataError, match=r"lack the columns kind"):
        collect_behaviours(
            policy(rule()), NO_ROWS, prompts().drop(columns="kind"), source="auto", split=None, limit=None
        )


def test_a_limit_takes_domains_in_turn_whatever_the_order_of_the_rows():
    settings = {"source": "prompts", "split": None}
    six = collect_behaviours(policy(rule()), NO_ROWS, prompts(), limit=6, **settings)
    assert six["domain"].value_counts().to_dict() == {"money": 2, "health": 2, "law": 2}
    shuffled = prompts().sample(frac=1, random_state=1)
    pd.testing.assert_frame_equal(
        collect_behaviours(policy(rule()), NO_ROWS, shuffled, limit=6, **settings), six
    )
    nine = collect_behaviours(policy(rule()), NO_ROWS, prompts(), limit=9, **settings)
    pd.testing.assert_frame_equal(nine.head(6), six)


def test_a_small_group_gives_what_it_has_and_the_others_the_rest():
    rows = [(f"{i:02}", f"b{i}", "r1" if i else "r2", None) for i in range(5)]
    behaviours = pd.DataFrame(rows, columns=["behaviour_id", "behaviour", "rule", "domain"])
    assert sorted(spread_behaviours(behaviours, 3)["rule"]) == ["r1", "r1", "r2"]


def test_a_request_that_is_given_twice_is_asked_once():
    file = pd.DataFrame({"prompt": ["Same?", "Same?"], "rule": ["a", "b"]})
    found = collect_behaviours(policy(rule()), file, NO_ROWS, source="file", split=None, limit=None)
    assert found["rule"].tolist() == ["a"]


@pytest.mark.parametrize("source", ["file", "policy", "prompts"])
def test_a_source_that_was_asked_for_and_has_nothing_stops_the_run(source):
    with pytest.raises(AttackError, match=rf"source: {source}` has no behaviours.*names: \[\]"):
        collect_behaviours(policy(rule()), NO_ROWS, NO_ROWS, source=source, split=None, limit=None)


def test_without_behaviours_anywhere_a_note_says_that_no_attack_is_run(caplog):
    caplog.set_level("INFO", logger="realignment")
    chosen = AttackParameters(names=("none", "base64"))
    found = collect_attack_prompts(
        DOCUMENT, policy(rule()), NO_ROWS, NO_ROWS, chosen, split=None, judged=True
    )
    assert found.empty
    assert tuple(found.columns) == ATTACK_PROMPT_COLUMNS
    assert "No attack is run" in caplog.text


def test_without_names_or_judges_nothing_is_asked_but_the_names_are_checked():
    for names, judged in (((), True), (("none",), False)):
        settings = AttackParameters(names=names, source="file")
        found = collect_attack_prompts(
            DOCUMENT, policy(rule()), NO_ROWS, prompts(), settings, split=None, judged=judged
        )
        assert found.empty
    with pytest.raises(AttackError, match="not known"):
        collect_attack_prompts(
            DOCUMENT,
            policy(rule()),
            NO_ROWS,
            NO_ROWS,
            AttackParameters(names=("x",)),
            split=None,
            judged=False,
        )


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (pd.DataFrame({"text": ["a"]}), r"lack a column `behaviour` or `prompt`; found text"),
        (pd.DataFrame({"prompt": ["a", " "]}), r"row 1 has no text in column `prompt`"),
        (pd.DataFrame({"behaviour": [None]}), r"row 0 has no text in column `behaviour`"),
        (pd.DataFrame({"behaviour": []}), r"no rows in column `behaviour`"),
    ],
)
def test_a_file_of_behaviours_that_cannot_be_used_is_refused(file, message):
    with pytest.raises(DataError, match=message):
        collect_behaviours(policy(rule()), file, prompts(), source="auto", split=None, limit=None)


# --- behaviours in a policy


def test_a_behaviour_has_the_domain_of_its_rule_or_its_own():
    found = policy_behaviours(
        policy(
            rule("one", domains=["money"], behaviours=["A"]),
            rule("two", domains=["money", "law"], behaviours=[{"request": "B", "domain": "law"}]),
            rule("any", behaviours=["C"]),
        )
    )
    rows = found[["behaviour", "rule", "domain"]].to_numpy().tolist()
    assert rows == [["A", "one", "money"], ["B", "two", "law"], ["C", "any", None]]


def test_a_behaviour_to_which_its_rule_would_not_apply_is_refused():
    for behaviour in ("B", {"request": "B", "domain": "cooking"}):
        with pytest.raises(PolicyError, match=r"rule no-order.*needs a `domain` of money, law"):
            policy(rule(domains=["money", "law"], behaviours=[behaviour]))


def test_behaviours_change_neither_the_digest_of_a_policy_nor_its_difference():
    without, with_some = policy(rule()), policy(rule(behaviours=["A"]))
    assert without.digest == with_some.digest
    assert diff_policies(without, with_some).empty
    changed = rule(behaviours=["A"]) | {"description": "Another."}
    assert policy(changed).digest != without.digest


def test_the_digests_of_the_policies_of_the_project_are_what_they_were_before_there_were_behaviours():
    digests = {
        "assistant-v2": "035c3510cb85974392818f4890945e4c7f4204a594d7571d35f48fc4a23ea1f9",
        "be-safe": "bf18dac44c354e0c1ab39e863161d944f7e240bc90f249c4539b18e0901be0ab",
    }
    for name, digest in digests.items():
        assert read_policy(ROOT / f"conf/base/policies/{name}.yml").digest == digest


def test_the_behaviours_of_the_sample_are_its_regulated_prompts_in_every_domain():
    rows = [json.loads(line) for line in read(ROOT / "data/01_raw/sample/prompts.jsonl").splitlines()]
    configured = yaml.safe_load(read(ROOT / "conf/base/parameters_evaluation.yml"))["evaluation"]
    asked = collect_attack_prompts(
        DOCUMENT, read_policy(ROOT / "conf/base/policies/assistant-v2.yml"), NO_ROWS, pd.DataFrame(rows),
        AttackParameters(**configured["attacks"]), split=configured["split"], judged=True,
    )  # fmt: skip
    assert len(asked) == 3 * 16
    assert asked.groupby("domain").size().min() >= 3 * 5
