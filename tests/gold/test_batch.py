"""Held-out, gold and training parts: nothing lost, nothing shared, everything reproducible."""

import logging
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up_pairs import make_pairs

from realignment.gold.batch import partition_pairs
from realignment.parameters import AuditParameters, GoldParameters
from realignment.pipelines.gold import nodes
from realignment.records import DataError, HealthError, NothingToDo
from realignment.tracking.lineage import LineageError, build_manifest


def triaged(invert=30, punish=30, retain=30, *, corrected=1.0, decided=1.0, per_prompt=1, rules=("a",)):
    """Triaged pairs; `corrected` is the share of PUNISH pairs with a correction, the first of them.

    `decided` is the share of RETAIN pairs whose rejected response violates; in the others both comply.
    """
    kinds = ["INVERT"] * invert + ["PUNISH"] * punish + ["RETAIN"] * retain
    rows = []
    for number, kind in enumerate(kinds):
        row = {"disposition": kind, "rules_broken": "" if kind == "RETAIN" else rules[number % len(rules)]}
        row |= {"chosen_verdict": kind == "RETAIN", "rejected_verdict": kind == "INVERT"}
        if kind == "RETAIN":
            row["rejected_verdict"] = number - invert - punish >= decided * retain
        if kind == "PUNISH" and number - invert < corrected * punish:
            row["correction"] = f"better {number}"
        rows.append(row)
    order = np.random.default_rng(1).permutation(
        len(kinds)
    )  # so that a prompt's pairs are of any disposition
    prompts = np.empty(len(kinds), dtype=object)
    prompts[order] = [f"Prompt {i // per_prompt}?" for i in range(len(kinds))]
    return make_pairs(*rows).assign(prompt=prompts)


def parts_of(table, *, share=0.1, size=12, composition="random", seed=0, **options):
    return partition_pairs(
        table, held_out_share=share, gold_size=size, composition=composition, seed=seed, **options
    )


def ids(part):
    return set(part["pair_id"])


def test_the_gold_batch_has_the_quota():
    gold = parts_of(triaged(), size=14).gold
    assert Counter(gold["disposition"]) == {"INVERT": 4, "PUNISH": 6, "RETAIN": 4}


@settings(deadline=None, max_examples=40)
@given(
    st.integers(20, 40), st.integers(20, 40), st.integers(20, 40), st.integers(1, 3), st.floats(0, 0.4),
    st.floats(0, 1), st.sampled_from(["random", "policy_targeted"]), st.integers(0, 9),
)  # fmt: skip
def test_every_pair_is_in_one_part_and_training_shares_no_prompt(
    invert, punish, retain, per_prompt, share, corrected, composition, seed
):
    table = triaged(invert, punish, retain, corrected=corrected, per_prompt=per_prompt, rules=("a", "b"))
    parts = parts_of(table, share=share, size=6, composition=composition, seed=seed)
    everywhere = [
        pair_id for part in (parts.held_out, parts.gold, parts.training) for pair_id in part["pair_id"]
    ]
    assert sorted(everywhere) == sorted(table["pair_id"])
    aside = set(parts.held_out["prompt"]) | set(parts.gold["prompt"])
    assert aside.isdisjoint(parts.training["prompt"])
    assert parts.gold["prompt"].is_unique
    assert len(parts.gold) == 6


@pytest.mark.parametrize("seed", range(5))
def test_where_prompts_are_unique_no_prompt_is_in_two_parts(seed):
    parts = parts_of(triaged(), seed=seed)
    prompts = [set(part["prompt"]) for part in (parts.held_out, parts.gold, parts.training)]
    assert sum(map(len, prompts)) == len(set.union(*prompts)) == 90


def test_prompts_of_one_pair_are_taken_for_gold_first():
    single = triaged(12, 12, 12)
    double = triaged(20, 20, 20, per_prompt=2)
    double = double.assign(prompt="Twice: " + double["prompt"], pair_id="d" + double["pair_id"])
    for seed in range(4):
        table = pd.concat([double, single], ignore_index=True)
        parts = parts_of(table, share=0, size=18, seed=seed)
        assert ids(parts.gold) <= ids(single)
        assert parts.held_out.empty


def test_a_prompt_with_a_pair_that_cannot_be_gold_counts_as_two():
    table = triaged(12, 12, 12)
    # An INVERT pair whose prompt also has a PUNISH pair without correction: as gold it would cost that pair.
    extra = triaged(6, 6, 0, corrected=0)
    shared = [f"Shared {number % 6}?" for number in range(12)]
    extra = extra.assign(prompt=shared, pair_id="x" + extra["pair_id"])
    for seed in range(4):
        parts = parts_of(pd.concat([table, extra], ignore_index=True), share=0, size=12, seed=seed)
        assert ids(parts.gold).isdisjoint(ids(extra))


def test_further_pairs_of_a_gold_prompt_are_held_out():
    parts = parts_of(triaged(per_prompt=3), share=0, size=6)
    assert len(parts.held_out) == 12
    assert set(parts.held_out["prompt"]) == set(parts.gold["prompt"])


@pytest.mark.parametrize("seed", range(3))
def test_the_held_out_share_is_drawn_of_every_disposition(seed):
    held_out = parts_of(triaged(40, 20, 30), share=0.1, seed=seed).held_out
    assert Counter(held_out["disposition"]) == {"INVERT": 4, "PUNISH": 2, "RETAIN": 3}


def test_the_seed_decides_the_draw_and_nothing_else_does():
    table = triaged()
    first, again, other = (parts_of(table, seed=seed) for seed in (5, 5, 6))
    for name in ("held_out", "gold", "training"):
        pd.testing.assert_frame_equal(getattr(first, name), getattr(again, name))
        assert ids(getattr(first, name)) != ids(getattr(other, name))


def test_parts_keep_the_order_of_the_pairs():
    parts = parts_of(triaged())
    for part in (parts.held_out, parts.gold, parts.training):
        numbers = [int(pair_id[1:]) for pair_id in part["pair_id"]]
        assert numbers == sorted(numbers)


def test_a_gold_pair_states_the_preference_of_the_new_policy():
    gold = parts_of(triaged()).gold
    wanted = {
        "INVERT": ("rejected {}", "chosen {}"), "PUNISH": ("better {}", "chosen {}"),
        "RETAIN": ("chosen {}", "rejected {}"),
    }  # fmt: skip
    for row in gold.to_dict("records"):
        preferred, dispreferred = (text.format(row["pair_id"][1:]) for text in wanted[row["disposition"]])
        assert (row["preferred"], row["dispreferred"]) == (preferred, dispreferred)
    assert set(gold["disposition"]) == set(wanted)


@pytest.mark.parametrize("seed", range(6))
def test_a_punish_pair_without_correction_is_never_gold(seed):
    gold = parts_of(triaged(corrected=0.1), size=15, share=0, seed=seed).gold
    assert Counter(gold["disposition"]) == {"INVERT": 7, "PUNISH": 3, "RETAIN": 5}
    assert gold.loc[gold["disposition"] == "PUNISH", "correction"].notna().all()
    assert gold["preferred"].notna().all()


@pytest.mark.parametrize("seed", range(6))
def test_a_retain_pair_whose_two_responses_comply_is_not_gold(seed):
    gold = parts_of(triaged(decided=0.1), size=15, share=0, seed=seed).gold
    assert Counter(gold["disposition"]) == {"INVERT": 7, "PUNISH": 5, "RETAIN": 3}
    assert not gold.loc[gold["disposition"] == "RETAIN", "rejected_verdict"].any()


def test_as_published_every_retain_pair_can_be_gold():
    gold = parts_of(triaged(decided=0.1), size=15, share=0, retained="all").gold
    assert Counter(gold["disposition"]) == {"INVERT": 5, "PUNISH": 5, "RETAIN": 5}
    assert gold.loc[gold["disposition"] == "RETAIN", "rejected_verdict"].any()


def test_a_gold_batch_without_retain_pairs_is_warned_of_and_is_no_error(caplog):
    table = triaged(decided=0.0)
    with caplog.at_level(logging.WARNING):
        gold = parts_of(table, size=12).gold
        assert Counter(gold["disposition"]) == {"INVERT": 8, "PUNISH": 4}
        parts_of(table, size=12, retained="all")
        parts_of(triaged(), size=12)
    (message,) = caplog.messages
    assert "no RETAIN pair" in message
    assert "`gold.retained: all`" in message


@pytest.mark.parametrize("seed", range(6))
def test_as_published_a_punish_pair_without_correction_prefers_an_answer_to_another_prompt(seed):
    table = triaged(20, 20, 20, corrected=0.4, per_prompt=2)
    parts = parts_of(table, size=9, share=0.3, seed=seed, punished="random_compliant", retained="all")
    everything = pd.concat([parts.gold, parts.training], ignore_index=True)
    complying = everything[everything["disposition"] != "PUNISH"]
    # Responses are numbered as pairs are, so each one tells its pair and its prompt.
    prompts = {
        row["chosen" if row["disposition"] == "RETAIN" else "rejected"]: row["prompt"]
        for row in complying.to_dict("records")
    }
    for row in parts.gold[parts.gold["disposition"] == "PUNISH"].to_dict("records"):
        assert row["dispreferred"] == row["chosen"]
        if isinstance(row["correction"], str):
            assert row["preferred"] == row["correction"]
        else:
            assert prompts[row["preferred"]] != row["prompt"]
    held_out = set(parts.held_out["chosen"]) | set(parts.held_out["rejected"])
    assert held_out.isdisjoint(parts.gold["preferred"])


def test_the_random_compliant_answer_is_decided_by_the_seed():
    table = triaged(corrected=0.0)
    first, again, other = (parts_of(table, seed=seed, punished="random_compliant").gold for seed in (5, 5, 6))
    pd.testing.assert_frame_equal(first, again)
    drawn = [set(gold.loc[gold["disposition"] == "PUNISH", "preferred"]) for gold in (first, other)]
    assert drawn[0] != drawn[1]
    assert Counter(first["disposition"]) == {"INVERT": 4, "PUNISH": 4, "RETAIN": 4}


@pytest.mark.parametrize("seed", range(4))
def test_policy_targeted_draws_conflicts_evenly_over_the_broken_rules(seed):
    table = triaged(60, 60, 60, rules=("common",) * 8 + ("rare", "seldom"))
    gold = parts_of(table, size=18, share=0, composition="policy_targeted", seed=seed).gold
    by_rule = gold.groupby("disposition")["rules_broken"].value_counts()
    for disposition in ("INVERT", "PUNISH"):
        assert by_rule[disposition].to_dict() == {"common": 2, "rare": 2, "seldom": 2}


def test_a_random_composition_follows_the_data():
    table = triaged(60, 60, 60, rules=("common",) * 8 + ("rare", "seldom"))
    rules = sum(
        (Counter(parts_of(table, size=18, share=0, seed=s).gold["rules_broken"]) for s in range(8)), Counter()
    )
    assert rules["common"] > 4 * rules["rare"] > 0


@pytest.mark.parametrize("size", [46, 91, 300])
def test_a_gold_batch_that_leaves_too_little_to_train_on_is_refused(size):
    with pytest.raises(DataError, match=rf"A gold batch of {size} pairs is too large.*Lower `gold.size`"):
        parts_of(triaged(30, 30, 5), share=0, size=size)


def test_a_gold_batch_that_cannot_be_filled_is_refused():
    table = triaged(5, 40, 5, corrected=0)
    conditions = {
        "one a prompt, a PUNISH pair only with a verified correction, a RETAIN pair only where its rejected "
        "response violates": {},
        "one a prompt, a PUNISH pair only with a verified correction": {"retained": "all"},
    }
    for condition, options in conditions.items():
        with pytest.raises(DataError, match=rf"10 gold pairs can be drawn \({condition}\)"):
            parts_of(table, share=0, size=12, **options)
    with pytest.raises(DataError, match=r"can be drawn \(one a prompt\)"):
        parts_of(table, share=0, size=60, retained="all", punished="random_compliant")


def test_a_large_gold_batch_that_leaves_half_of_the_conflicts_passes():
    assert len(parts_of(triaged(30, 30, 30), share=0, size=45).gold) == 45


def run_node(table, manifest=None, oracle_report=None, audit_report=None, **parameters):
    names = {"invert_pairs": "INVERT", "corrected_pairs": "PUNISH", "retain_pairs": "RETAIN"}
    splits = {n: table[table["disposition"] == d].reset_index(drop=True) for n, d in names.items()}
    facts = {"policy": "d", "policy_version": "2", "oracle": "rules"}
    manifest = manifest or build_manifest("corrections", inputs={}, outputs=splits, **facts)
    triaged = build_manifest("triage", inputs={}, outputs=splits, **facts)
    measured = (oracle_report or {}, audit_report or {}, AuditParameters(max_misrouted=0.2))
    return nodes.draw_gold_batch(
        *splits.values(), manifest, triaged, *measured, GoldParameters(**parameters), 0
    )


def test_the_node_draws_as_its_parameters_say():
    table = triaged(corrected=0.0, decided=0.0)
    _, ours, *_ = run_node(table, size=12)
    _, published, *_ = run_node(table, size=12, retained="all", punished="random_compliant")
    assert Counter(ours["disposition"]) == {"INVERT": 12}
    assert Counter(published["disposition"]) == {"INVERT": 4, "PUNISH": 4, "RETAIN": 4}


def test_too_many_misrouted_pairs_by_the_labels_stop_the_run_before_anything_is_drawn():
    report = {"disposition_confusion": {"RETAIN": {"INVERT": 3, "RETAIN": 7}}}
    with pytest.raises(HealthError, match=r"the labels of 10 pairs, 30\.0% of the pairs to train on"):
        run_node(triaged(), oracle_report=report, size=12)


def test_an_audit_of_these_splits_gives_every_training_pair_its_error_rate():
    *_, manifest = run_node(triaged(), size=12)
    assert "error_rate" not in run_node(triaged(), size=12)[2]
    outputs = manifest["inputs"]
    report = {
        "triage": outputs, "n": 99, "misrouted": {"share": 0.1, "interval": [0.05, 0.15]},
        "error_rates": {"INVERT": {"n": 30, "rate": 0.07}},
    }  # fmt: skip
    _, _, training, _ = run_node(triaged(), audit_report=report, size=12)
    rates = training.groupby("disposition")["error_rate"].unique().map(list).to_dict()
    assert rates["INVERT"] == [0.07]
    assert training.loc[training["disposition"] == "PUNISH", "error_rate"].isna().all()


def test_the_node_hands_on_what_the_splits_were_judged_by():
    *parts, manifest = run_node(triaged(), size=12)
    assert sum(map(len, parts)) == 90
    assert list(manifest["outputs"]) == ["held_out_pairs", "gold_batch", "training_pairs"]
    assert (manifest["policy"], manifest["policy_version"], manifest["oracle"]) == ("d", "2", "rules")
    assert manifest["seed"] == 0


def test_the_node_refuses_splits_of_different_runs():
    other = build_manifest(
        "corrections", inputs={}, outputs={"invert_pairs": triaged(1, 0, 0)}, policy_version="2"
    )
    with pytest.raises(LineageError, match="invert_pairs"):
        run_node(triaged(), other, size=12)


def test_all_pairs_retained_ends_the_run_well():
    with pytest.raises(NothingToDo) as ended:
        run_node(triaged(0, 0, 20), size=12)
    assert "All 20 judged pairs already comply with policy version 2" in ended.value.reason
    assert ended.value.code == 0


def test_the_flow_counts_every_pair_by_its_destination():
    table = triaged()
    parts = parts_of(table)
    splits = [table[table["disposition"] == d] for d in ("INVERT", "PUNISH", "RETAIN", "REVIEW")]
    figure = nodes.draw_triage_flow(*splits, parts.held_out, parts.gold, parts.training)
    labels = " ".join(figure.data[0].node.label)
    for name, part in (("held out", parts.held_out), ("gold", parts.gold), ("training", parts.training)):
        assert f"{name}" in labels
        assert f"{len(part)}" in labels
