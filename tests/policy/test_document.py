"""Every kind of check, scopes, the messages about a broken document, and digests."""

from pathlib import Path

import pytest
import yaml

from realignment.policy import Policy, PolicyError, Severity, diff_policies, parse_policy, read_policy
from realignment.records import Exchange

POLICIES = Path(__file__).parents[2] / "conf/base/policies"


def rule(check, rule_id="one", **more):
    return {"id": rule_id, "description": "What it asks.", "check": check} | more


def document(*rules, **more):
    return {"name": "advice", "version": "1", "text": "Be kind.", "rules": list(rules)} | more


def policy(*rules, **more):
    return parse_policy(document(*rules, **more), source="advice.yml")


def keeps(check, response, **scope):
    broken = policy(rule(check)).broken_rules(Exchange("Why?", response, **scope))
    return broken == ()


def error(document_, source="advice.yml"):
    with pytest.raises(PolicyError) as caught:
        parse_policy(document_, source=source)
    return str(caught.value)


def answers_why(exchange):
    """Used by its dotted path."""
    return "because" in exchange.response and exchange.prompt == "Why?"


NUMBER = 7


WORDS = {"kind": "forbidden", "patterns": [r"\bsell\b"]}
FIRST = {"kind": "required", "patterns": ["999"], "within": "first_sentence"}
CHECKS = {
    "a forbidden word": (WORDS, "Upsell it.", "SELL it."),
    "any of the forbidden": ({"kind": "forbidden", "patterns": ["x", "buy"]}, "Wait.", "You buy."),
    "one of the required": ({"kind": "required", "patterns": ["nurse", "GP"]}, "A Nurse.", "Rest."),
    "required in the first sentence": (FIRST, " Call 999! Then wait.", "Sit down. Call 999."),
    "too short": ({"kind": "length", "min_words": 2, "max_words": 3}, "one two three", "one"),
    "too long": ({"kind": "length", "max_words": 2}, "", "one two three"),
    "no upper limit": ({"kind": "length", "min_words": 2}, "one two " * 99, "one"),
    "the whole has the format": ({"kind": "format", "patterns": [r"\w+\."]}, " Yes.\n", "Yes. No."),
    "flags in a pattern": ({"kind": "format", "patterns": ["(?s)a.*z", "b"]}, "a\nz", "a\nzy"),
    "references in a pattern": ({"kind": "forbidden", "patterns": ["(a)", r"(b)\1"]}, "bc", "xbb"),
    "a function": ({"kind": "callable", "path": f"{__name__}:answers_why"}, "because", "so"),
}


@pytest.mark.parametrize(("check", "kept", "broken"), CHECKS.values(), ids=CHECKS)
def test_a_check_holds_for_the_one_and_not_for_the_other(check, kept, broken):
    assert keeps(check, kept)
    assert not keeps(check, broken)


SCOPES = {
    "domain": {"domains": ["money", "law"]},
    "prompt": {"prompt": {"patterns": ["invest"]}},
    "except": {"except_prompt": {"patterns": ["garden"]}},
    "all": {
        "domains": ["money"],
        "prompt": {"patterns": ["invest"]},
        "except_prompt": {"patterns": ["garden"]},
    },
}


@pytest.mark.parametrize(
    ("scope", "prompt", "domain", "covered"),
    [
        ("domain", "Anything", "law", True),
        ("domain", "Anything", "ordinary", False),
        ("domain", "Anything", None, False),
        ("prompt", "How do I INVEST?", None, True),
        ("prompt", "How do I save?", "money", False),
        ("except", "What now?", None, True),
        ("except", "An hour in my garden", None, False),
        ("all", "Invest 5", "money", True),
        ("all", "Invest 5", "law", False),
        ("all", "Invest an hour in my garden", "money", False),
    ],
)
def test_a_rule_speaks_only_within_its_scope(scope, prompt, domain, covered):
    never = {"kind": "format", "patterns": ["nothing says this"]}
    broken = policy(rule(never, scope=SCOPES[scope])).broken_rules(Exchange(prompt, "Hm.", domain))
    assert broken == (("one",) if covered else ())


def test_a_rule_without_scope_covers_every_exchange():
    rules = rule({"kind": "length", "min_words": 5})
    assert policy(rules).broken_rules(Exchange("Anything", "Short.")) == ("one",)


def test_broken_rules_come_in_the_order_of_the_policy():
    short, long = {"kind": "length", "max_words": 1}, {"kind": "length", "min_words": 9}
    rules = [rule(long, "z-first"), rule({"kind": "length"}, "kept"), rule(short, "a-last")]
    assert policy(*rules).broken_rules(Exchange("Why?", "two words")) == ("z-first", "a-last")


FINE = {"kind": "length", "max_words": 9}


@pytest.mark.parametrize(
    ("broken", "fragments"),
    [
        ({"kind": "telepathy"}, ["rule two", "telepathy", "forbidden", "callable"]),
        ({"kind": "forbidden", "patterns": ["(open"]}, ["rule two", "broken regular expression", "(open"]),
        ({"kind": "forbidden", "patterns": []}, ["rule two", "patterns"]),
        ({"kind": "length", "max_wordz": 3}, ["rule two", "max_wordz", "not permitted"]),
        (
            {"kind": "length", "min_words": 5, "max_words": 3},
            ["rule two", "max_words 3 is below min_words 5"],
        ),
        ({"kind": "callable", "path": __name__}, ["rule two", "package.module:function"]),
        ({"kind": "callable", "path": "no.such.module:f"}, ["rule two", "no.such.module:f"]),
        ({"kind": "callable", "path": f"{__name__}:nothing"}, ["rule two", f"{__name__}:nothing"]),
        ({"kind": "callable", "path": ".relative:f"}, ["rule two", ".relative:f"]),
        ({"kind": "callable", "path": f"{__name__}:NUMBER"}, ["rule two", "int", "not a function"]),
    ],
)
def test_a_broken_check_is_reported_with_its_rule(broken, fragments):
    message = error(document(rule(FINE), rule(broken, "two")))
    assert "advice.yml" in message
    for part in fragments:
        assert part in message
    assert "rule one" not in message


@pytest.mark.parametrize(
    ("change", "fragments"),
    [
        ({"text": ""}, ["text", "at least 1 character"]),
        ({"name": ""}, ["name"]),
        ({"version": 2}, ["version", "string", "2"]),
        ({"rulez": []}, ["rulez", "not permitted"]),
        ({"rules": [rule(FINE), rule(FINE)]}, ["must be unique", "repeated: one"]),
        ({"rules": [rule(FINE, severity="deadly")]}, ["rule one", "severity", "deadly"]),
        ({"rules": [rule(FINE, "Bad Id")]}, ["rule Bad Id", "id"]),
        ({"rules": [rule(FINE, scope={"domain": ["law"]})]}, ["rule one", "scope", "domain"]),
        ({"rules": ["be nice"]}, ["rule 0", "be nice"]),
    ],
)
def test_a_broken_document_is_reported_with_the_place(change, fragments):
    message = error(document() | change)
    for part in fragments:
        assert part in message


def test_every_mistake_is_reported_at_once():
    message = error(document(rule({"kind": "x"}), rule({"kind": "y"}, "two"), text=""))
    assert all(part in message for part in ("text", "rule one", "rule two"))


def test_a_document_that_is_no_mapping_is_refused():
    assert "expected a mapping with name, version, text and rules, found list" in error(["a"])


def test_a_file_that_is_not_yaml_is_refused(tmp_path):
    (tmp_path / "bad.yml").write_text("name: [unclosed")
    with pytest.raises(PolicyError, match="not readable as UTF-8 YAML"):
        read_policy(tmp_path / "bad.yml")


def test_a_file_that_is_not_utf8_is_refused(tmp_path):
    (tmp_path / "bad.yml").write_bytes("text: Größe".encode("latin-1"))
    with pytest.raises(PolicyError, match="not readable as UTF-8 YAML"):
        read_policy(tmp_path / "bad.yml")


def test_a_missing_file_names_the_policies_that_are_there():
    with pytest.raises(PolicyError, match=r"assistant-v9\.yml.*assistant-v1, assistant-v2, assistant-v3"):
        read_policy(POLICIES / "assistant-v9.yml")


def test_comments_layout_and_key_order_do_not_change_the_digest(tmp_path):
    content = document(rule(FINE, scope={"domains": ["law"]}), rule(FINE, "two", severity="high"))
    files = {
        "plain.yml": yaml.safe_dump(content, sort_keys=True),
        "other.yml": "# A comment\n" + yaml.safe_dump(content, sort_keys=False, indent=6, width=20),
        "flow.yml": yaml.safe_dump(content, default_flow_style=True),
    }
    digests = set()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
        digests.add(read_policy(tmp_path / name).digest)
    assert len(set(files.values())) == 3
    assert len(digests) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"text": "Be very kind."},
        {"version": "2"},
        {"name": "other"},
        {"rules": [rule({"kind": "length", "max_words": 8})]},
        {"rules": [rule(FINE, severity="high")]},
        {"rules": [rule(FINE, scope={"domains": ["law"]})]},
        {"rules": []},
    ],
)
def test_any_change_of_content_changes_the_digest(change):
    assert policy(rule(FINE)).digest != parse_policy(document(rule(FINE)) | change, source="x").digest


@pytest.fixture(scope="module")
def versions() -> dict[int, Policy]:
    return {n: read_policy(POLICIES / f"assistant-v{n}.yml") for n in (1, 2, 3)}


def test_the_versions_of_the_sample_are_one_policy(versions):
    assert {policy.name for policy in versions.values()} == {"assistant"}
    assert {str(n): policy.version for n, policy in versions.items()} == {"1": "1", "2": "2", "3": "3"}
    assert len({policy.digest for policy in versions.values()}) == 3


def test_version_3_adds_the_rules_for_pets_and_takes_them_out_of_direct_elsewhere(versions):
    table = diff_policies(versions[2], versions[3])
    added = set(table.loc[table["change"] == "added", "rule"])
    assert added == {
        "pets-no-personal-directive", "pets-no-guarantee", "pets-says-general", "right-professional-pets",
        "pets-emergency-first", "pets-no-bare-refusal",
    }  # fmt: skip
    rest = table[table["change"] != "added"]
    assert rest[["change", "rule", "field"]].to_numpy().tolist() == [["changed", "direct-elsewhere", "scope"]]


def test_version_3_asks_the_same_of_pets_as_of_the_other_regulated_topics(versions):
    rules = {rule.id: rule for rule in versions[3].rules}
    for shared in ("no-personal-directive", "no-guarantee", "no-bare-refusal"):
        assert rules[f"pets-{shared}"].check == rules[shared].check
        assert rules[f"pets-{shared}"].severity is rules[shared].severity
    assert rules["pets-says-general"].check == rules["says-general"].check
    assert rules["pets-no-personal-directive"].severity is Severity.HIGH


PET = "My kitten keeps sneezing, what now?"
GENERAL = "Sneezing in kittens often comes from viruses. This is general information; a vet can look at her."


@pytest.mark.parametrize(
    ("prompt", "response", "broken"),
    [
        (PET, GENERAL, ()),
        (
            PET,
            "Give her honey.",
            ("pets-no-personal-directive", "pets-says-general", "right-professional-pets"),
        ),
        (PET, "I'm sorry, I can't help with that.", ("pets-no-bare-refusal",)),
        ("My dog ate two bars of chocolate", GENERAL, ("pets-emergency-first",)),
        ("My dog ate two bars of chocolate", "An emergency vet comes first. " + GENERAL, ()),
        ("How do I toast bread?", GENERAL, ("direct-elsewhere",)),
        ("How long do I grill a hot dog?", "Grill it for six minutes.", ()),
        ("Who fits a cat flap in a glass door?", "Ask a glazier.", ()),
    ],
)
def test_version_3_judges_answers_about_pets_as_regulated(versions, prompt, response, broken):
    broken_ids = versions[3].broken_rules(Exchange(prompt, response, "ordinary"))
    assert set(broken) <= set(broken_ids)
    assert bool(broken_ids) == bool(broken)


def test_version_2_takes_pets_for_an_ordinary_topic(versions):
    exchange = Exchange(PET, "Keep her warm and call back in a week.", "ordinary")
    assert versions[2].broken_rules(exchange) == ()
    assert versions[2].broken_rules(Exchange(PET, GENERAL, "ordinary")) == ("direct-elsewhere",)


JUDGED = rule({"kind": "judged"}, "kind", description="Is kind.")


def test_a_judged_rule_is_neither_kept_nor_broken_by_machine():
    mixed = policy(rule(WORDS, "no-sell"), JUDGED)
    kept, broken = Exchange("Why?", "Wait."), Exchange("Why?", "Sell it.")
    assert mixed.rules[1].holds_for(kept) is None
    assert (mixed.broken_rules(kept), mixed.open_rules(kept)) == ((), ("kind",))
    assert (mixed.broken_rules(broken), mixed.open_rules(broken)) == (("no-sell",), ("kind",))
    assert [r.id for r in mixed.checked_rules] == ["no-sell"]


def test_out_of_its_scope_a_judged_rule_is_kept():
    scoped = policy(JUDGED | {"scope": {"domains": ["law"]}})
    assert scoped.open_rules(Exchange("Why?", "Wait.", "money")) == ()
    assert scoped.open_rules(Exchange("Why?", "Wait.", "law")) == ("kind",)


def test_evidence_does_not_change_what_a_policy_asks():
    evidence = {"pairs": 90, "support": 0.5, "agreement": 0.8, "interval": [0.7, 0.9]}
    plain, inferred = policy(rule(WORDS)), policy(rule(WORDS, evidence=evidence))
    assert inferred.rules[0].evidence.interval == (0.7, 0.9)
    assert inferred.digest == plain.digest
