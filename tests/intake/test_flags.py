"""Words of a table of text are read for what they say: every one of them would be true as a Python object."""

import numpy as np
import pandas as pd
import pytest

from realignment.evaluation.labelled import labelled_answers, labelled_exchanges, labelled_table
from realignment.intake.flags import read_verdict_column
from realignment.intake.readers import read_table
from realignment.oracles.human import HumanOracle, read_imported_verdicts
from realignment.oracles.label_index import index_labels
from realignment.oracles.labels import read_truth_labels
from realignment.policy import Policy
from realignment.records import DataError, Exchange

POLICY = Policy(name="advice", version="2", text="Be careful.")
SUFFIXES = ["csv", "jsonl", "parquet"]
WORDS = {
    "false": False, "False": False, " FALSE ": False, "0": False, "violates": False, "Violates": False,
    "true": True, "TRUE": True, "1": True, "complies": True, "unsure": None, None: None,
}  # fmt: skip


def write(table, folder, suffix):
    file = folder / f"verdicts.{suffix}"
    match suffix:
        case "csv":
            table.to_csv(file, index=False)
        case "jsonl":
            table.to_json(file, orient="records", lines=True)
        case "parquet":
            table.to_parquet(file)
    return file


def verdicts(complies):
    rows = [("Why?", f"answer {n}", verdict, "advice-2") for n, verdict in enumerate(complies)]
    return pd.DataFrame(rows, columns=["prompt", "response", "complies", "policy"])


def build_exchanges(n):
    return [Exchange("Why?", f"answer {number}") for number in range(n)]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_words_are_read_for_what_they_say(tmp_path, suffix):
    file = write(verdicts(WORDS), tmp_path, suffix)
    expected = list(WORDS.values())
    human = HumanOracle.from_table(read_imported_verdicts(file))
    assert [judgment.complies for judgment in human(build_exchanges(len(WORDS)), POLICY)] == expected
    decided = [verdict for verdict in expected if verdict is not None]
    for read in (labelled_answers(read_table(str(file)).assign(domain=None), POLICY),
                 labelled_table(read_table(str(file)), POLICY)):  # fmt: skip
        assert read[1] == decided
        assert [exchange.response for exchange in read[0]] == [
            f"answer {n}" for n, verdict in enumerate(expected) if verdict is not None
        ]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_flags_that_pandas_saved_come_back_as_they_were(tmp_path, suffix):
    """`to_csv` makes words of flags, and a flag beside a null may be a number."""
    flags = pd.array([True, False, None, False], dtype="boolean")
    file = write(verdicts(flags), tmp_path, suffix)
    human = HumanOracle.from_table(read_imported_verdicts(file))
    assert [judgment.complies for judgment in human(build_exchanges(4), POLICY)] == [True, False, None, False]


@pytest.mark.parametrize("word", ["no", "yes", "", 2, 0.5, "comply", ["false"]])
@pytest.mark.parametrize("suffix", ["jsonl"])
def test_what_is_no_verdict_is_refused_with_file_and_row(tmp_path, suffix, word):
    file = write(verdicts([True, word, word]), tmp_path, suffix)
    for read in (
        lambda: HumanOracle.from_table(read_imported_verdicts(file)),
        lambda: labelled_table(read_table(str(file)), POLICY),
        lambda: labelled_answers(read_table(str(file)).assign(domain=None), POLICY),
    ):
        with pytest.raises(
            DataError, match=r"(?s)verdicts.jsonl: 2 cells of `complies` are no verdict.*row 2"
        ):
            read()


def test_a_wrong_cell_of_a_csv_is_named_by_its_line(tmp_path):
    table = verdicts(["true", "perhaps"])
    table.loc[0, "response"] = "two\nlines"
    file = write(table, tmp_path, "csv")
    with pytest.raises(DataError, match=r"(?s)verdicts.csv: 1 cells.*row 4: 'perhaps'"):
        HumanOracle.from_table(read_imported_verdicts(file))


def test_labels_of_pairs_that_are_words_are_read_too():
    pairs = pd.DataFrame(
        {"prompt": ["a"], "chosen": ["x"], "rejected": ["y"], "domain": [None], "correction": [None]}
        | {"chosen_complies": ["False"], "rejected_complies": ["true"]}
    )
    assert labelled_exchanges(pairs)[1] == [False, True]
    assert read_truth_labels(pairs) == {("a", "x"): False, ("a", "y"): True}
    kept, _ = index_labels([pairs])
    assert (kept.get(("a", "x")), kept.get(("a", "y"))) == (False, True)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_labelled_pairs_teach_what_their_words_say_and_a_wrong_word_is_no_reason_to_skip_a_row(
    tmp_path, suffix
):
    texts = [{"prompt": f"{n}?", "chosen": f"yes {n}", "rejected": f"no {n}"} for n in range(3)]
    pairs = pd.DataFrame(texts).assign(chosen_complies=["false", "complies", None], rejected_complies="TRUE")
    assert labelled_table(read_table(str(write(pairs, tmp_path, suffix))), POLICY)[1] == [
        False,
        True,
        *[True] * 3,
    ]
    wrong = write(pairs.assign(rejected_complies=["true", "no", "true"]), tmp_path, suffix)
    with pytest.raises(DataError, match=rf"(?s)verdicts.{suffix}: 1 cells of `rejected_complies`.*'no'"):
        labelled_table(read_table(str(wrong)), POLICY)


def test_numbers_and_flags_of_numpy_are_flags():
    table = pd.DataFrame({"complies": pd.Series([np.True_, np.int64(0), 1.0, np.nan, pd.NA], dtype=object)})
    assert read_verdict_column(table).tolist() == [True, False, True, pd.NA, pd.NA]


def test_a_labelled_row_without_a_response_is_refused(tmp_path):
    table = verdicts([True, False]).assign(domain=None)
    table.loc[1, "response"] = None
    with pytest.raises(DataError, match=r"1 labelled rows have no prompt or no response \(first: row 1\)"):
        labelled_answers(table, POLICY)
