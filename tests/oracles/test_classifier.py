"""The classifier learns the labels, says how sure it is, and is measured on prompts it was not trained on."""

import random

import numpy as np
import pytest
from made_up_pairs import POLICY

from realignment.oracles.classifier import ClassifierError, build_pipeline
from realignment.oracles.cross_validation import fit_classifier, fit_uncalibrated, validate_classifier
from realignment.records import Exchange

CAREFUL = ["In general terms", "As background only", "An adviser can tell", "Speaking generally"]
BOLD = ["Sell it now", "Just buy more", "Definitely hold", "Put it all in"]
FILLERS = ["shares", "bonds", "savings", "pensions", "property", "gold", "funds", "loans"]


def make_exchanges(prompts, *, seed=0, domain="money"):
    """One complying and one violating response a prompt, in words that tell them apart."""
    rng = random.Random(seed)
    exchanges, labels = [], []
    for number in range(prompts):
        for openings, label in ((CAREFUL, True), (BOLD, False)):
            text = f"{rng.choice(openings)}, {rng.choice(FILLERS)} and {rng.choice(FILLERS)} matter."
            exchanges.append(Exchange(f"Prompt {number}?", text, domain))
            labels.append(label)
    return exchanges, labels


def test_words_that_tell_the_classes_apart_are_learnt():
    oracle, validation = fit_classifier(*make_exchanges(20), folds=4, seed=0)
    assert (validation.n, validation.folds, validation.correct.shape) == (40, 4, (40,))
    assert validation.accuracy >= 0.9
    fresh, truth = make_exchanges(5, seed=9)
    judgments = oracle(fresh, POLICY)
    assert [j.complies for j in judgments] == truth
    assert all(0.5 <= j.confidence <= 1 for j in judgments)
    assert {j.oracle for j in judgments} == {"classifier"}
    shown = [float(j.reason.removeprefix("P(complies) = ")) for j in judgments]
    sure = [j.confidence if j.complies else 1 - j.confidence for j in judgments]
    assert shown == pytest.approx(sure, abs=0.005)


def test_random_labels_are_not_learnt():
    exchanges, _ = make_exchanges(60)
    labels = np.random.default_rng(0).random(120) < 0.5
    _, validation = fit_classifier(exchanges, labels, folds=5, seed=0)
    assert 0.3 < validation.accuracy < 0.7


def test_a_prompt_is_never_in_training_and_test_at_once():
    """What is only true of a prompt's own responses cannot be known by a fold that has none of them."""
    rng = random.Random(3)
    exchanges, labels = [], []
    for number in range(30):
        label = number % 2 == 0
        secret = "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=9))
        exchanges += [Exchange(f"Prompt {number}?", f"{secret} {secret} said {i}") for i in range(4)]
        labels += [label] * 4
    _, grouped = fit_classifier(exchanges, labels, folds=5, seed=0)
    leaking = [Exchange(str(i), exchange.response) for i, exchange in enumerate(exchanges)]
    _, ungrouped = fit_classifier(leaking, labels, folds=5, seed=0)
    assert grouped.accuracy < 0.75
    assert ungrouped.accuracy > 0.95


def test_the_same_words_may_be_right_on_one_topic_and_wrong_on_another():
    regulated, truth = make_exchanges(20)
    ordinary = [Exchange(e.prompt + " really", e.response, "ordinary") for e in regulated]
    oracle, _ = fit_classifier([*regulated, *ordinary], [*truth, *(not t for t in truth)], folds=4, seed=0)
    text = "In general terms, bonds and gold matter."
    judgments = oracle([Exchange("?", text, "money"), Exchange("?", text, "ordinary")], POLICY)
    assert [j.complies for j in judgments] == [True, False]


def test_what_is_learnt_on_one_topic_is_not_carried_to_another():
    """A referral is right on health and over-refusal in cooking: words without their topic say nothing."""
    oracle, _ = fit_classifier(*make_exchanges(20, domain="money"), folds=4, seed=0)
    fresh, truth = make_exchanges(5, seed=9, domain="money")
    elsewhere = [Exchange(e.prompt, e.response, "cooking") for e in fresh]
    assert [j.complies for j in oracle(fresh, POLICY)] == truth
    assert len({j.reason for j in oracle(elsewhere, POLICY)}) == 1


def test_capitals_and_punctuation_do_not_matter():
    oracle, _ = fit_classifier(*make_exchanges(20), folds=4, seed=0)
    texts = ["Sell it now, bonds and gold matter.", "SELL IT NOW: bonds (and gold) matter!"]
    first, second = oracle([Exchange("?", text, "money") for text in texts], POLICY)
    assert first == second
    assert first.complies is False


def test_the_same_seed_gives_the_same_classifier():
    exchanges, labels = make_exchanges(20)
    labels = [label != (i % 7 == 0) for i, label in enumerate(labels)]
    first, one = fit_classifier(exchanges, labels, folds=4, seed=1)
    second, two = fit_classifier(exchanges, labels, folds=4, seed=1)
    fresh, _ = make_exchanges(10, seed=5)
    assert (one.correct == two.correct).all()
    assert first(fresh, POLICY) == second(fresh, POLICY)


@pytest.mark.parametrize("labels", [[], [True] * 40, [True] * 38 + [False] * 2])
def test_too_few_labels_of_a_kind_are_refused(labels):
    exchanges = make_exchanges(20)[0][: len(labels)]
    with pytest.raises(
        ClassifierError, match=r"at least 3 prompts .* rarer kind has [01] prompts.*`evaluation.folds`"
    ):
        fit_classifier(exchanges, labels, folds=3, seed=0)


def test_many_labels_of_few_prompts_are_refused():
    exchanges, labels = make_exchanges(20)
    few = [Exchange(str(i % 4), exchange.response) for i, exchange in enumerate(exchanges)]
    with pytest.raises(ClassifierError, match="rarer kind has 2 prompts"):
        fit_classifier(few, labels, folds=3, seed=0)


def test_empty_and_missing_text_is_judged_too():
    oracle, _ = fit_classifier(*make_exchanges(20), folds=4, seed=0)
    assert oracle([], POLICY) == []
    assert len(oracle([Exchange("Why?", "", None)], POLICY)) == 1


def test_fitting_fits_once_and_measuring_once_per_fold():
    exchanges, labels = make_exchanges(20)
    fits = []

    def build(seed):
        fits.append(seed)
        return build_pipeline(seed)

    options = {"folds": 4, "seed": 3, "build": build}
    fitted = fit_uncalibrated(exchanges, labels, **options)
    assert fits == [3]
    validation = validate_classifier(exchanges, labels, **options)
    assert fits == [3] * 5
    oracle, both = fit_classifier(exchanges, labels, folds=4, seed=3)
    fresh, _ = make_exchanges(5, seed=9)
    assert oracle(fresh, POLICY) == fitted(fresh, POLICY)
    np.testing.assert_array_equal(both.raw, validation.raw)


def test_what_could_not_be_measured_is_not_fitted():
    exchanges, labels = make_exchanges(2)
    with pytest.raises(ClassifierError, match="at least 3 prompts"):
        fit_uncalibrated(exchanges, labels, folds=3, seed=0)
