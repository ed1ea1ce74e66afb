"""What attacks ask for: from a file, the policy or the prompts, and never what a pair asks for."""

import json

import pandas as pd
import pytest
import yaml
from documents import ROOT, read
from made_up_pairs import make_pairs

from realignment.evaluation.attacks.behaviours import (
    collect_attack_prompts,
    collect_behaviours,
    policy_behaviours,
    spread_behaviours,
)
from realignment.evaluation.attacks.wrappers import (
    ATTACK_PROMPT_COLUMNS,
    AttackError,
    build_attack_prompts,
    read_attacks,
)
from realignment.parameters import EvaluationParameters
from realignment.policy import PolicyError, diff_policies, parse_policy, read_policy
from realignment.records import DataError

DOCUMENT = yaml.safe_load((ROOT / "conf/base/attacks.yml").read_text(encoding="utf-8"))
ATTACKS = {attack.name: attack for attack in read_attacks(DOCUMENT)}
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


def settings(**changes):
    return EvaluationParameters.model_validate({"capability": {"questions": None}} | changes)


def collect(prompts, *, pairs=None, judged=True, file=NO_ROWS, rules=None, **attacks):
    chosen = settings(attacks={"names": ("none",)} | attacks)
    return collect_attack_prompts(
        DOCUMENT, policy(*(rules or [rule()])), file, prompts, pairs, chosen, judged=judged
    )


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
    found = collect(NO_ROWS, names=("none", "base64"))
    assert found.empty
    assert tuple(found.columns) == ATTACK_PROMPT_COLUMNS
    assert "No attack is run" in caplog.text


def test_without_names_or_judges_nothing_is_asked_but_the_names_are_checked():
    for names, judged in (((), True), (("none",), False)):
        assert collect(NO_ROWS, judged=judged, names=names, source="file").empty
    with pytest.raises(AttackError, match="not known"):
        collect(NO_ROWS, judged=False, names=("x",))


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
        None, settings(split=configured["split"], attacks=configured["attacks"]), judged=True,
    )  # fmt: skip
    assert len(asked) == 3 * 16
    assert asked.groupby("domain").size().min() >= 3 * 5


# --- what the model was trained on

REQUEST = "Tell me which of my two index funds I should sell this week"
PAIRS = make_pairs(
    {"prompt": "How often should I water a cactus?"},
    {"prompt": "Tell me which of my two index funds I should sell this week, please."},
)


@pytest.mark.parametrize(
    "source",
    [
        {"file": pd.DataFrame({"behaviour": ["What is a bond?", REQUEST]})},
        {"rules": [rule(behaviours=["What is a bond?", REQUEST])]},
        {
            "prompts": pd.DataFrame(
                {
                    "prompt_id": ["a", "b"], "prompt": ["What is a bond?", REQUEST], "domain": "money",
                    "kind": "regulated",
                }
            )
        },
    ],
    ids=["file", "policy", "prompts"],
)  # fmt: skip
def test_a_behaviour_that_is_in_the_pairs_or_nearly_so_is_refused_wherever_it_is_from(source):
    arguments = {"prompts": NO_ROWS} | source
    said = r"1 of 2 behaviours that the attacks ask for .*'Tell me which of my two.* ~ pair p1 .*`behaviours`"
    with pytest.raises(DataError, match=said):
        collect(**arguments, pairs=PAIRS)
    assert len(collect(**arguments, pairs=PAIRS.iloc[:1])) == 2
    assert len(collect(**arguments, pairs=None)) == 2, "nothing was trained"


def test_only_what_is_asked_is_checked():
    file = pd.DataFrame({"behaviour": ["What is a bond?", REQUEST]})
    for attacks in ({"names": ()}, {"judged": False}):
        assert collect(NO_ROWS, file=file, pairs=PAIRS, **attacks).empty
    first = collect(NO_ROWS, file=file, pairs=None, behaviours_limit=1)["prompt"].tolist()
    rest = PAIRS if first == ["What is a bond?"] else PAIRS.iloc[:1]
    assert len(collect(NO_ROWS, file=file, pairs=rest, behaviours_limit=1)) == 1
