"""Outputs of different runs are never mixed silently."""

import pandas as pd
import pytest

from realignment.lineage import LineageError, check, seal
from realignment.parameters import TriageParameters
from realignment.pipelines.triage import nodes
from realignment.records import digest_table

PAIRS, JUDGMENTS = pd.DataFrame({"pair_id": ["a", "b"]}), pd.DataFrame({"complies": [True, False]})
MANIFEST = seal(
    "judging", inputs={"raw": "known digest", "pairs": PAIRS},
    outputs={"pairs": PAIRS, "judgments": JUDGMENTS}, policy="p2", oracle="rules",
)  # fmt: skip


def test_a_manifest_holds_digests_and_facts():
    assert {
        "stage": "judging",
        "inputs": {"raw": "known digest", "pairs": digest_table(PAIRS)},
        "outputs": {"pairs": digest_table(PAIRS), "judgments": digest_table(JUDGMENTS)},
        "policy": "p2",
        "oracle": "rules",
    } == MANIFEST


def test_the_tables_of_one_run_pass():
    check(MANIFEST, {"pairs": PAIRS.copy(), "judgments": JUDGMENTS})
    check(MANIFEST, {"judgments": JUDGMENTS})


def test_a_table_of_another_run_is_named_with_what_to_do():
    with pytest.raises(LineageError) as caught:
        check(MANIFEST, {"pairs": PAIRS, "judgments": JUDGMENTS.iloc[::-1]})
    message = str(caught.value)
    assert message.startswith("judgments and `judging_manifest` come from different runs")
    assert "--load-versions" in message
    assert "`--pipelines judging`" in message


def test_every_stranger_is_named():
    with pytest.raises(LineageError, match=r"^pairs, judgments and"):
        check(MANIFEST, {"pairs": JUDGMENTS, "judgments": PAIRS})


def test_a_table_that_the_stage_never_wrote_is_a_stranger():
    with pytest.raises(LineageError, match=r"^other and"):
        check(MANIFEST, {"other": PAIRS})


def test_triage_refuses_judgments_of_other_pairs():
    facts = {"policy_version": "2"}
    with pytest.raises(LineageError, match=r"^pairs and"):
        nodes.triage_pairs(PAIRS.iloc[:1], JUDGMENTS, MANIFEST | facts, TriageParameters())
