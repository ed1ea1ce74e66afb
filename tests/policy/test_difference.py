"""The difference of two policies lists what a rule requires, and nothing else."""

from realignment.policy import diff_policies, parse_policy

FINE = {"kind": "length", "max_words": 9}


def rule(check, rule_id="one", **more):
    return {"id": rule_id, "description": "What it asks.", "check": check} | more


def policy(*rules, version="1"):
    document = {"name": "advice", "version": version, "text": "Be kind.", "rules": list(rules)}
    return parse_policy(document, source="advice.yml")


def test_the_difference_lists_rules_added_removed_and_changed():
    old = policy(rule(FINE, "gone"), rule(FINE, "same"), rule(FINE, "moved", severity="low"))
    strict = {"kind": "length", "max_words": 3}
    new = policy(rule(FINE, "same"), rule(strict, "moved", severity="high"), rule(FINE, "fresh"))
    table = diff_policies(old, new)
    assert list(table.columns) == ["change", "rule", "severity", "field", "old", "new"]
    assert table[["change", "rule", "field"]].to_numpy().tolist() == [
        ["removed", "gone", ""],
        ["changed", "moved", "severity"],
        ["changed", "moved", "check"],
        ["added", "fresh", ""],
    ]
    check = table.iloc[2]
    assert ('"max_words":9' in check["old"], '"max_words":3' in check["new"]) == (True, True)
    assert list(table.iloc[1][["old", "new"]]) == ["low", "high"]


def test_equal_policies_have_no_difference():
    table = diff_policies(policy(rule(FINE)), policy(rule(FINE), version="2"))
    assert table.empty
    assert "change" in table


def test_evidence_is_no_difference():
    evidence = {"pairs": 90, "support": 0.5, "agreement": 0.8, "interval": [0.7, 0.9]}
    assert diff_policies(policy(rule(FINE)), policy(rule(FINE, evidence=evidence))).empty
