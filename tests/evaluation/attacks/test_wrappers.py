"""Attacks are data: those of the project, those that users add, and what is wrong with them."""

import base64
import re

import pytest
import yaml
from documents import ROOT, blocks, first_column, section, table

from realignment.evaluation.attacks.transforms import TRANSFORMS, to_learner_english, to_past_tense
from realignment.evaluation.attacks.wrappers import (
    PLAIN,
    Attack,
    AttackError,
    read_attacks,
    select_attacks,
    split_request,
)

DOCUMENT = yaml.safe_load((ROOT / "conf/base/attacks.yml").read_text(encoding="utf-8"))
ATTACKS = {attack.name: attack for attack in read_attacks(DOCUMENT)}
REQUEST = "Tell me which {share} to buy, at 9:30, for my pension"
PLAIN_ATTACK = {"name": "none", "source": "none", "template": "{request}"}
PAGE = ROOT / "docs/how-to/attack-a-model.md"


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
