"""The embedded sample is what its data card says: enough, balanced, and not made from templates."""

import re
from collections import Counter
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from sample_files import SAMPLE, read

from realignment.evaluation.contamination import find_leaks
from realignment.policy import read_policy
from realignment.triage import decide_disposition

MAX_COSINE = 0.45
"""Of TF-IDF vectors of character 5-grams. A response and itself with every tenth word replaced have 0.78."""

MAX_JACCARD = 0.2
"""Of sets of word trigrams. A response and itself with every tenth word replaced have 0.64."""


@pytest.fixture(scope="module")
def pairs():
    return read("pairs")


@pytest.fixture(scope="module")
def prompts():
    return read("prompts")


@pytest.fixture(scope="module")
def capability():
    return read("capability")


@pytest.fixture(scope="module")
def answers():
    return read("judge_answers")


@pytest.fixture(scope="module")
def responses(pairs):
    """Every response by (pair_id, column)."""
    columns = ["chosen", "rejected", "correction"]
    return pairs.set_index("pair_id")[columns].stack().dropna()


def dispositions(pairs):
    truth = zip(pairs["chosen_complies"].tolist(), pairs["rejected_complies"].tolist(), strict=True)
    return Counter(str(decide_disposition(*verdicts)) for verdicts in truth)


def test_there_are_three_hundred_pairs_with_the_promised_columns(pairs):
    assert len(pairs) >= 300
    expected = ["pair_id", "prompt", "chosen", "rejected", "domain", "chosen_complies", "rejected_complies"]
    assert set(pairs.columns) == {*expected, "correction"}
    assert pairs[expected].notna().all(axis=None)
    assert pairs["pair_id"].is_unique
    assert (pairs["chosen_complies"].dtype, pairs["rejected_complies"].dtype) == (bool, bool)
    assert (pairs["chosen"] != pairs["rejected"]).all()


def test_the_pairs_cover_three_regulated_domains_and_ordinary_topics(pairs):
    counts = Counter(pairs["domain"])
    assert set(counts) == {"money", "health", "law", "ordinary"}
    assert min(counts.values()) >= 60


def test_every_disposition_has_its_share(pairs):
    counts = dispositions(pairs)
    assert set(counts) == {"INVERT", "PUNISH", "RETAIN"}
    shares = {name: count / len(pairs) for name, count in counts.items()}
    assert min(shares.values()) >= 0.15, shares


def test_corrections_are_written_for_punish_pairs_alone(pairs):
    corrected = pairs[pairs["correction"].notna()]
    assert set(dispositions(corrected)) == {"PUNISH"}
    assert len(corrected) >= 50


def test_there_are_evaluation_prompts_of_three_kinds(prompts):
    assert list(prompts.columns) == ["prompt_id", "prompt", "domain", "kind", "emergency", "split"]
    assert prompts["prompt_id"].is_unique
    counts = prompts.groupby("split")["kind"].value_counts().unstack()
    assert set(counts.index) == {"development", "test"}
    assert set(counts.columns) == {"regulated", "ordinary", "look_alike"}
    assert counts.loc["development"].min() >= 30
    assert counts.loc["test"].min() >= 100


def test_test_prompts_cover_every_domain_and_emergencies(prompts):
    regulated = prompts[(prompts["split"] == "test") & (prompts["kind"] == "regulated")]
    assert regulated[~regulated["emergency"]].groupby("domain").size().min() >= 40
    assert regulated["emergency"].sum() >= 20
    assert not prompts.loc[prompts["kind"] != "regulated", "emergency"].any()


def test_the_kind_of_a_prompt_and_its_domain_say_the_same(prompts):
    regulated = prompts["kind"] == "regulated"
    assert set(prompts.loc[regulated, "domain"]) == {"money", "health", "law"}
    assert set(prompts.loc[~regulated, "domain"]) == {"ordinary"}


def test_responses_have_15_to_60_words(responses):
    words = responses.str.split().map(len)
    outside = words[(words < 15) | (words > 60)]
    assert outside.empty, outside.to_dict()


def normal(texts):
    return [" ".join(re.findall(r"\w+", text.lower())) for text in texts]


def test_every_prompt_is_there_once_and_none_is_both_trained_on_and_evaluated(pairs, prompts):
    everything = Counter([*normal(pairs["prompt"]), *normal(prompts["prompt"])])
    assert [prompt for prompt, count in everything.items() if count > 1] == []


def closest_by_characters(texts):
    """The largest cosine of two texts' TF-IDF vectors of character 5-grams, and where the two are."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectors = TfidfVectorizer(analyzer="char", ngram_range=(5, 5)).fit_transform(normal(texts))
    similarity = (vectors @ vectors.T).toarray()
    np.fill_diagonal(similarity, 0)
    first, second = np.unravel_index(similarity.argmax(), similarity.shape)
    return float(similarity[first, second]), int(first), int(second)


def closest_by_words(texts):
    """The largest Jaccard index of two texts' sets of word trigrams, and where the two are."""
    words = [text.split() for text in normal(texts)]
    trigrams = [{*zip(w, w[1:], w[2:], strict=False)} for w in words]
    sharing = {}
    for index, members in enumerate(trigrams):
        for trigram in members:
            sharing.setdefault(trigram, []).append(index)
    candidates = {pair for members in sharing.values() for pair in combinations(members, 2)}
    scored = [(len(trigrams[a] & trigrams[b]) / len(trigrams[a] | trigrams[b]), a, b) for a, b in candidates]
    return max(scored, default=(0.0, 0, 0))


@pytest.mark.parametrize(
    ("measure", "limit"), [(closest_by_characters, MAX_COSINE), (closest_by_words, MAX_JACCARD)]
)
def test_no_two_responses_are_near_duplicates(responses, measure, limit):
    found, first, second = measure(responses.to_list())
    where = [responses.index[i] for i in (first, second)]
    texts = [responses.iloc[i] for i in (first, second)]
    assert found <= limit, f"{measure.__name__} is {found:.3f} (limit {limit}) for {where}: {texts}"


def test_the_measures_of_similarity_find_a_near_duplicate(responses):
    words = responses.iloc[0].split()
    texts = [*responses.iloc[:50], " ".join("something" if i % 10 == 9 else w for i, w in enumerate(words))]
    for measure, limit in ((closest_by_characters, MAX_COSINE), (closest_by_words, MAX_JACCARD)):
        found, first, second = measure(texts)
        assert found > limit
        assert {first, second} == {0, 50}


def test_no_two_prompts_are_near_duplicates(pairs, prompts):
    texts = [*pairs["prompt"], *prompts["prompt"]]
    found, first, second = closest_by_words(texts)
    assert found <= 0.3, f"trigram Jaccard {found:.3f} for {texts[first]!r} and {texts[second]!r}"


def test_no_evaluation_prompt_is_a_near_copy_of_a_pairs_prompt(pairs, prompts):
    """The same measure and limit as the pipeline's; test prompts are no copies of development ones either."""
    sources = [*pairs["prompt"], *prompts.loc[prompts["split"] == "development", "prompt"]]
    tested = prompts.loc[prompts["split"] == "test", "prompt"].tolist()
    developed = prompts.loc[prompts["split"] == "development", "prompt"].tolist()
    assert find_leaks(developed, pairs["prompt"].tolist()) == []
    assert find_leaks(tested, sources) == []


def test_test_prompts_are_not_made_from_templates(prompts):
    texts = prompts.loc[prompts["split"] == "test", "prompt"].tolist()
    openings = Counter(" ".join(text.split()[:3]) for text in normal(texts))
    assert max(openings.values()) <= 2, openings.most_common(5)
    found, first, second = closest_by_characters(texts)
    assert found <= 0.3, f"{texts[first]!r} and {texts[second]!r}"
    words = pd.Series(texts).str.split().map(len)
    assert words.min() <= 6
    assert words.max() >= 25
    assert words.std() >= 3


def test_no_opening_of_four_words_is_used_more_than_three_times(responses):
    openings = Counter(" ".join(text.split()[:4]) for text in normal(responses))
    assert max(openings.values()) <= 3, openings.most_common(5)


def test_retained_pairs_show_ordinary_and_look_alike_prompts_where_the_policy_ends(pairs):
    """Without them a small model learns the new manner and takes it everywhere."""
    affirmed = pairs[pairs["chosen_complies"] & ~pairs["rejected_complies"]]
    assert (affirmed["domain"] == "ordinary").sum() >= 80
    look_alike = pairs[pairs["pair_id"].str.startswith("look-alike-")]
    assert len(look_alike) >= 60
    assert set(look_alike["domain"]) == {"ordinary"}
    assert look_alike["chosen_complies"].all()


def test_labelled_answers_have_both_labels_in_every_domain(answers):
    known = ["answer_id", "prompt", "response", "domain", "emergency", "setting", "complies", "policy"]
    assert set(answers.columns) == {*known, "model", "seed", "complies_second", "answers_question", "reason"}
    assert answers[known].notna().all(axis=None)
    assert answers["answer_id"].is_unique
    assert not answers.duplicated(["prompt", "response"]).any()
    assert answers["complies"].dtype == bool
    counts = answers.groupby(["domain", "complies"]).size()
    assert len(counts) == 8
    assert counts.min() >= 5, counts.to_dict()


def test_labelled_answers_are_under_the_policy_that_the_pairs_are_labelled_under(answers):
    policy = read_policy(SAMPLE.parents[2] / "conf/base/policies/assistant-v2.yml")
    assert set(answers["policy"]) == {f"{policy.name}-{policy.version}"}


def test_labelled_answers_are_to_no_prompt_that_is_evaluated(answers, prompts):
    assert not answers["prompt"].isin(prompts["prompt"]).any()


def test_there_are_120_capability_questions_with_evenly_spread_answers(capability):
    assert list(capability.columns) == ["question", "choices", "answer", "subject"]
    assert len(capability) == 120
    assert Counter(capability["answer"]) == {0: 30, 1: 30, 2: 30, 3: 30}
    assert len(set(normal(capability["question"]))) == 120


def test_every_capability_question_has_four_different_choices(capability):
    for row in capability.to_dict("records"):
        assert len({choice.lower() for choice in row["choices"]}) == 4, row["question"]


def test_the_data_card_has_the_measured_figures(pairs, prompts, answers, responses):
    card = (SAMPLE / "README.md").read_text(encoding="utf-8")
    cosine, jaccard = (
        measure(responses.to_list())[0] for measure in (closest_by_characters, closest_by_words)
    )
    labels = answers.groupby("domain")["complies"]
    expected = {
        f"{len(pairs)} pairs", f"{len(prompts)} prompts", f"{len(answers)} answers",
        f"all {len(responses)} responses",
        *(f"| {name} | {(~said).sum()} | {said.sum()} |" for name, said in labels),
        f"{cosine:.2f}", f"{jaccard:.2f}",
        *(f"| {name} | {count} |" for name, count in dispositions(pairs).items()),
    }  # fmt: skip
    missing = {figure for figure in expected if figure not in card}
    assert not missing, f"the data card lacks {missing}"
