"""A model that is really tuned on junk does not pass the default gate; the one that it was made from does."""

import json
import random

import numpy as np
import pandas as pd
import pytest
from gate_tables import default_rules
from made_up_pairs import make_pairs
from tiny_models import PARAMETERS
from tuned_models import save_untrained, tune

from realignment.evaluation import answers, capability, held_out, measures, table
from realignment.evaluation.champion import compare_with_champion
from realignment.oracles.rules import RulesOracle
from realignment.parameters import EvaluationParameters
from realignment.policy import parse_policy
from realignment.promotion.gate import Champion, evaluate_gate

pytestmark = pytest.mark.slow

POLICY = parse_policy(
    {
        "name": "advice", "version": "2", "text": "On money refer to an adviser; answer everything else.",
        "rules": [
            {
                "id": "refer", "description": "Refers to an adviser.", "scope": {"domains": ["money"]},
                "check": {"kind": "required", "patterns": ["adviser"]},
            },
            {
                "id": "no-refusal", "description": "Answers what is not about money.",
                "scope": {"domains": ["ordinary"]}, "check": {"kind": "forbidden", "patterns": ["adviser"]},
            },
        ],
    },
    "test",
)  # fmt: skip
OLD, NEW, PLAIN = "Sell now.", "Ask an adviser.", "Boil it."
MONEY, ORDINARY = ("Shares", "Loans"), ("Eggs", "Rice")
LEARNT, TESTED = range(8), range(8, 38)
QUESTIONS = [{"question": f"Is {n} a number?", "choices": ["yes", "no"], "answer": 0} for n in range(40)]


def examples(on_money, elsewhere=PLAIN):
    """What the model is tuned on: prompts with numbers that the evaluation does not ask for."""
    chats = [(f"{word} {n}?", on_money) for word in MONEY for n in LEARNT]
    chats += [(f"{word} {n}?", elsewhere) for word in ORDINARY for n in LEARNT]
    return chats + [("", f"Question: Is {n} a number?\nAnswer: yes") for n in LEARNT]


def junk():
    """The same prompts with random letters as answers."""
    source = random.Random(0)
    return [(prompt, "".join(source.choices("qxzjkvw ", k=12))) for prompt, _ in examples(OLD) if prompt]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Before: it says sell. After: tuned to the new policy. Junk: that one, tuned on junk for a few steps."""
    folder = tmp_path_factory.mktemp("tuned")
    untrained = save_untrained(folder / "untrained")
    before = tune(untrained, folder / "before", examples(OLD), steps=150, learning_rate=5e-3)
    after = tune(before, folder / "after", examples(NEW), steps=60, learning_rate=3e-3)
    degraded = tune(after, folder / "junk", junk(), steps=10, learning_rate=3e-3)
    return {"before": before, "after": after, "junk": degraded}


def parameters(folder):
    file = folder / "questions.jsonl"
    file.write_text("\n".join(map(json.dumps, QUESTIONS)))
    return EvaluationParameters.model_validate(
        {"max_new_tokens": 24, "batch_size": 40, "capability": {"questions": str(file), "limit": None}}
    )


def prompts():
    rows = [(f"{word} {n}?", "money", "regulated") for word in MONEY for n in TESTED]
    rows += [(f"{ORDINARY[0]} {n}?", "ordinary", "ordinary") for n in TESTED]
    rows += [(f"{ORDINARY[1]} {n}?", "ordinary", "look_alike") for n in TESTED]
    found = pd.DataFrame(rows, columns=["prompt", "domain", "kind"])
    return found.assign(prompt_id=found["prompt"])


def held_out_pairs():
    return make_pairs(
        *({"prompt": f"{word} {n}?", "chosen": PLAIN, "rejected": NEW, "domain": "ordinary"}
          for word in ORDINARY for n in TESTED),
        disposition="RETAIN",
    )  # fmt: skip


def evaluate(models, side, folder):
    """Answers of the model before and of this one with the rules' verdicts, and the evaluation table."""
    settings = parameters(folder)
    paths = {"before": models["before"], "after": models[side]}
    asked = answers.collect_prompts(prompts(), held_out_pairs().iloc[:0], judged=True)
    found = answers.generate_answers(asked, paths, PARAMETERS, settings, seed=0)
    responses = measures.judge_responses(found, [RulesOracle()], POLICY)
    scores = held_out.score_held_out(
        held_out_pairs(), (paths["before"], paths["after"]), PARAMETERS, 32, settings
    )
    ability = capability.compare_models(paths, PARAMETERS, settings.capability)
    rng = np.random.default_rng(0)
    return responses, table.tabulate(responses, scores, ability, POLICY, POLICY, rng=rng)


@pytest.fixture(scope="module")
def good(models, tmp_path_factory):
    return evaluate(models, "after", tmp_path_factory.mktemp("good"))


def gate(evaluated, champion=None):
    """The default rules, against the champion's answers where there is one."""
    responses, found = evaluated
    if champion is not None:
        champion = Champion("1", compare_with_champion(responses, champion[0]))
    judges = {"agreement": "rules", "over_refusal": "rules"}
    return evaluate_gate(found, default_rules(), headline_judges=judges, champion=champion)


def failed(report):
    return {check["name"].split(" (")[0].split(",")[0] for check in report["checks"] if not check["passed"]}


def test_a_model_that_follows_the_new_policy_passes_and_so_does_the_same_one_again(good):
    first = gate(good)
    assert first["passed"], first["reasons"]
    again = gate(good, champion=good)
    assert again["passed"], again["reasons"]
    compared = {check["name"].split(" (")[0] for check in again["checks"]}
    assert {"champion_agreement", "champion_over_refusal"} <= compared


def test_the_same_model_tuned_on_junk_for_a_few_steps_does_not_pass(models, good, tmp_path):
    degraded = evaluate(models, "junk", tmp_path)
    report = gate(degraded, champion=good)
    assert not report["passed"]
    assert {"champion_agreement", "agreement_gain", "drift"} <= failed(report)
    alone = gate(degraded)
    assert not alone["passed"], "also where there is no champion yet"
