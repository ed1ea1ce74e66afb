"""Outputs of different runs are never mixed silently."""

import inspect

import pandas as pd
import pytest

from realignment.parameters import TriageParameters
from realignment.pipelines.evaluation import nodes as evaluation
from realignment.pipelines.triage import nodes
from realignment.records import digest_table
from realignment.tracking.lineage import LineageError, build_manifest, check_model, check_policy, check_tables

PAIRS, JUDGMENTS = pd.DataFrame({"pair_id": ["a", "b"]}), pd.DataFrame({"complies": [True, False]})
MANIFEST = build_manifest(
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
    check_tables(MANIFEST, {"pairs": PAIRS.copy(), "judgments": JUDGMENTS})
    check_tables(MANIFEST, {"judgments": JUDGMENTS})


def test_a_table_of_another_run_is_named_with_what_to_do():
    with pytest.raises(LineageError) as caught:
        check_tables(MANIFEST, {"pairs": PAIRS, "judgments": JUDGMENTS.iloc[::-1]})
    message = str(caught.value)
    assert message.startswith("judgments and `judging_manifest` come from different runs")
    assert "--load-versions" in message
    assert "`--pipelines judging`" in message


def test_every_stranger_is_named():
    with pytest.raises(LineageError, match=r"^pairs, judgments and"):
        check_tables(MANIFEST, {"pairs": JUDGMENTS, "judgments": PAIRS})


def test_a_table_that_the_stage_never_wrote_is_a_stranger():
    with pytest.raises(LineageError, match=r"^other and"):
        check_tables(MANIFEST, {"other": PAIRS})


HELD_OUT = pd.DataFrame({"pair_id": ["z"]})


def draw(*pair_ids):
    """The manifests of a draw that left these pairs to train on, and of a model trained on them."""
    training_pairs = pd.DataFrame({"pair_id": pair_ids})
    gold = build_manifest(
        "gold", inputs={}, outputs={"held_out_pairs": HELD_OUT, "training_pairs": training_pairs}
    )
    return gold, build_manifest("training", inputs={"training_pairs": training_pairs}, outputs={})


def test_a_model_of_the_same_draw_passes():
    gold, training = draw("a", "b")
    check_model(training, gold)


def test_a_model_of_another_draw_may_have_seen_what_is_held_out_and_is_refused():
    (_, older), (gold, _) = draw("a", "z"), draw("a", "b")
    with pytest.raises(LineageError, match="trained on other pairs") as caught:
        check_model(older, gold)
    message = str(caught.value)
    assert "`--pipelines impact,training,evaluation,promotion`" in message
    assert "`--load-versions` for held_out_pairs and gold_manifest" in message


def test_a_model_whose_training_pairs_are_not_known_is_refused():
    gold, _ = draw("a")
    with pytest.raises(LineageError, match=r"\(training_pairs unknown\)"):
        check_model(build_manifest("training", inputs={}, outputs={}), gold)


@pytest.mark.parametrize("node", [evaluation.collect_prompts, evaluation.score_held_out])
@pytest.mark.parametrize(
    ("pairs", "model", "said"),
    [(HELD_OUT, "az", "trained on other pairs"), (PAIRS, "ab", "different runs of the stage 'gold'")],
)
def test_the_evaluation_refuses_pairs_of_another_draw_before_it_loads_a_model(node, pairs, model, said):
    given = {
        "held_out_pairs": pairs, "gold_manifest": draw(*"ab")[0], "training_manifest": draw(*model)[1],
    }  # fmt: skip
    with pytest.raises(LineageError, match=said):
        node(**{name: given.get(name) for name in inspect.signature(node).parameters})


def test_triage_refuses_judgments_of_other_pairs():
    facts = {"policy_version": "2"}
    with pytest.raises(LineageError, match=r"^pairs and"):
        nodes.triage_pairs(PAIRS.iloc[:1], JUDGMENTS, MANIFEST | facts, TriageParameters())


def test_a_policy_that_changed_since_a_stage_is_refused():
    manifest = build_manifest("triage", inputs={}, outputs={}, policy="a" * 64, policy_version="2")
    check_policy(manifest, "a" * 64)
    with pytest.raises(LineageError, match=r"changed \(digest bbbb.*stage 'triage' worked under version 2"):
        check_policy(manifest, "b" * 64)
