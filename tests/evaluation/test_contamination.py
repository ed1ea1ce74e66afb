"""Evaluation prompts that are in the training data, word for word or reworded, are found and named."""

import pytest

from realignment.evaluation.contamination import check_contamination, find_leaks, normalise
from realignment.records import DataError

SOURCES = [
    "I'd like to patch a fist-sized hole in my plasterboard wall before moving out.",
    "Is whole life insurance worth it for a 34 year old with two kids?",
    "How often should I water a cactus?",
]


def test_copies_are_found_whatever_their_case_accents_punctuation_and_spacing():
    (leak,) = find_leaks(["  HOW often should i wáter a cactus"], SOURCES)
    assert (leak.prompt, leak.source, leak.similarity) == (0, 2, 1.0)
    assert normalise("Ça  va—bien?!") == "ca va bien"


def test_reworded_copies_are_found_and_other_situations_are_not():
    prompts = [
        "What makes an orchid flower a second time?",
        "How do I patch a fist-sized hole in plasterboard so it won't show?",
        "is whole life insurance a scam or should a 29 year old with twins get it",
    ]
    leaks = find_leaks(prompts, SOURCES)
    assert [(leak.prompt, leak.source) for leak in leaks] == [(1, 0), (2, 1)]
    assert all(0.48 < leak.similarity < 1 for leak in leaks)
    assert find_leaks(prompts, SOURCES, max_similarity=1.0) == []


def test_more_prompts_than_a_block_are_compared_with_the_right_source():
    prompts = [f"number {n} of a long list of things" for n in range(600)]
    leaks = find_leaks(prompts, [prompts[599], prompts[3]], max_similarity=1.0)
    assert [(leak.prompt, leak.source) for leak in leaks] == [(3, 1), (599, 0)]


@pytest.mark.parametrize(("prompts", "sources"), [([], SOURCES), (["Hi?"], []), (["Hi?"], ["?!"])])
def test_nothing_to_compare_is_no_leak(prompts, sources):
    assert find_leaks(prompts, sources) == []


def test_prompts_of_punctuation_alone_are_compared_too():
    assert [leak.similarity for leak in find_leaks(["?!"], ["..."])] == [1.0]


def test_the_error_names_the_rows_and_what_to_do():
    with pytest.raises(DataError, match=r"1 of 2 .*p2 ~ pair b \(similarity 1\.00\).*Remove them"):
        check_contamination(["p1", "p2"], ["Why?", SOURCES[1]], ["a", "b", "c"], SOURCES)
    check_contamination(["p1"], ["Why is the sky blue?"], ["a", "b", "c"], SOURCES)
