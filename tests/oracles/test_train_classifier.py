"""Labels become a calibrated classifier with measured errors; what cannot be used says why."""

import json
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
from command_line import ROOT, latest_run, saved
from made_up_pairs import POLICY, make_pairs
from sklearn.metrics import f1_score, precision_score, recall_score, roc_auc_score

from realignment.evaluation.labelled import labelled_table
from realignment.oracles import train_classifier
from realignment.oracles.classifier import ClassifierError
from realignment.oracles.classifier_validation import report_validation, tabulate_folds, tabulate_reliability
from realignment.oracles.loading import load_classifier
from realignment.oracles.trained_classifier import TrainedClassifier
from realignment.parameters import ClassifierParameters, TextClassifierParameters
from realignment.policy import Policy
from realignment.records import DataError, Exchange

WORDS = ["shares", "bonds", "gold", "funds", "loans", "rents", "notes", "coins", "homes", "farms", "ships"]
CAREFUL, BOLD = "In general terms, {} may rise or fall", "You must sell {} today"


def exchanges(n=44, *, noise=0.0, seed=0):
    rng = np.random.default_rng(seed)
    examples, labels = [], []
    for number in range(n):
        for text, label in ((CAREFUL, True), (BOLD, False)):
            words = " and ".join(rng.choice(WORDS, 2))
            examples.append(Exchange(f"Prompt {number}?", text.format(words), "money"))
            labels.append(bool(label != (rng.random() < noise)))
    return examples, labels


def train_judge(*labelled, **parameters):
    return train_classifier.train_judge(*labelled, POLICY, ClassifierParameters(**parameters), seed=0)


@pytest.mark.parametrize("calibration", ["platt", "isotonic"])
def test_noisy_labels_give_confidences_that_know_of_the_noise(calibration):
    labelled = exchanges(200, noise=0.2)
    trained, validation = train_judge(*labelled, calibration=calibration, folds=4)
    report = report_validation(validation, *labelled, seed=0)
    assert report["calibrated"]["accuracy"]["value"] == pytest.approx(0.8, abs=0.06)
    assert report["calibrated"]["ece"]["value"] < report["raw"]["ece"]["value"]
    fresh, _ = exchanges(20, seed=9)
    confidence = [judgment.confidence for judgment in trained.oracle(fresh, POLICY)]
    assert 0.65 < np.mean(confidence) < 0.92


def test_of_what_it_was_trained_on_it_says_what_the_other_folds_said():
    """Its own training labels, some of them wrong, are not remembered."""
    labelled = exchanges(40, noise=0.25)
    trained, validation = train_judge(*labelled, folds=4)
    judgments = trained.oracle(labelled[0], POLICY)
    agree = np.mean([j.complies == label for j, label in zip(judgments, labelled[1], strict=True)])
    assert agree == pytest.approx(np.mean((validation.raw >= 0.5) == labelled[1]), abs=0.1)
    assert agree < 0.9


def test_the_figures_are_scikit_learns():
    labelled = exchanges(60, noise=0.15)
    _, validation = train_judge(*labelled, folds=3)
    report = report_validation(validation, *labelled, seed=0)
    violates, alarm = ~np.array(labelled[1]), validation.calibrated < 0.5
    values = {name: figure["value"] for name, figure in report["calibrated"].items()}
    assert values["precision"] == pytest.approx(precision_score(violates, alarm))
    assert values["recall"] == pytest.approx(recall_score(violates, alarm))
    assert values["f1"] == pytest.approx(f1_score(violates, alarm))
    assert values["auc"] == pytest.approx(roc_auc_score(labelled[1], validation.calibrated))
    for figure in report["calibrated"].values():
        assert figure["interval"][0] <= figure["value"] <= figure["interval"][1]
    assert (report["n"], report["prompts"], report["folds"]) == (120, 60, 3)


def test_every_fold_is_a_step_and_together_they_are_all_labels():
    labelled = exchanges()
    _, validation = train_judge(*labelled, folds=4)
    folds = tabulate_folds(validation, labelled[1])
    assert folds["step"].tolist() == [1, 2, 3, 4]
    assert folds["n"].sum() == len(labelled[1])
    bins = tabulate_reliability(validation, labelled[1])
    assert bins["n"].sum() == len(labelled[1])
    assert bins["share"].sum() == pytest.approx(1)


def keep(folder, thing, name="classifier.joblib"):
    joblib.dump(thing, folder / name)
    return TextClassifierParameters(source=str(folder / name), folder=str(folder))


def test_a_classifier_that_was_kept_judges_as_it_did(tmp_path):
    trained, _ = train_judge(*exchanges(), folds=3)
    fresh, _ = exchanges(10, seed=5)
    oracle = load_classifier(keep(tmp_path, trained))
    assert oracle(fresh, POLICY) == trained.oracle(fresh, POLICY)


def test_a_classifier_of_another_policy_is_refused(tmp_path):
    trained, _ = train_judge(*exchanges(), folds=3)
    newer = Policy(name="advice", version="3", text="Be bold.")
    with pytest.raises(ClassifierError, match=r"labels under advice-2, and is asked to judge by advice-3"):
        load_classifier(keep(tmp_path, trained))(exchanges(1)[0], newer)


def test_a_classifier_that_learnt_by_what_the_policy_said_before_an_edit_is_refused(tmp_path):
    trained, _ = train_judge(*exchanges(), folds=3)
    edited = Policy(name=POLICY.name, version=POLICY.version, text="Be bold.")
    with pytest.raises(ClassifierError, match=r"advice-2 was edited since .*train it again with the same"):
        load_classifier(keep(tmp_path, trained))(exchanges(1)[0], edited)


class Earlier:
    """Pickles as a `TrainedClassifier` of a version that did not know its last field."""

    def __init__(self, trained):
        self.state = [getattr(trained, name) for name in TrainedClassifier.__slots__[:-1]]

    def __reduce__(self):
        return object.__new__, (TrainedClassifier,), self.state


def test_a_classifier_of_an_earlier_version_that_knew_no_digest_is_refused(tmp_path):
    trained, _ = train_judge(*exchanges(), folds=3)
    with pytest.raises(ClassifierError, match="made by an earlier version of this package: train it again"):
        load_classifier(keep(tmp_path, Earlier(trained)))


def test_labels_by_what_the_policy_said_before_an_edit_teach_nothing():
    edited = Policy(name=POLICY.name, version=POLICY.version, text="Be bold.")
    labels = LABELLED.assign(policy_digest=POLICY.fingerprint)
    assert labelled_table(labels, POLICY)[1] == [True]
    with pytest.raises(DataError, match=r"advice-2 was edited since people judged by it"):
        labelled_table(labels, edited)


def test_something_else_in_the_file_is_refused(tmp_path):
    with pytest.raises(ClassifierError, match=r"holds a dict, expected what `train_classifier` made"):
        load_classifier(keep(tmp_path, {}))
    (tmp_path / "broken.joblib").write_bytes(b"no pickle")
    with pytest.raises(
        ClassifierError, match=r"broken.joblib cannot be read as a classifier.*Train it again"
    ):
        load_classifier(TextClassifierParameters(source=str(tmp_path / "broken.joblib"), folder="."))


def test_no_classifier_is_refused_with_the_way_to_get_one(tmp_path):
    with pytest.raises(ClassifierError, match=r"No classifier at .*`--pipelines train_classifier`"):
        load_classifier(TextClassifierParameters(source=str(tmp_path / "c.joblib"), folder="."))


def test_the_newest_version_of_a_catalog_entry_is_taken(tmp_path):
    trained, _ = train_judge(*exchanges(), folds=3)
    for version, thing in (("2026-01-01", {}), ("2026-01-02", trained)):
        folder = tmp_path / "classifier.joblib" / version
        folder.mkdir(parents=True)
        keep(folder, thing)
    source = str(tmp_path / "classifier.joblib")
    assert load_classifier(TextClassifierParameters(source=source, folder=".")).name == "classifier"


@pytest.mark.parametrize("path", ["no.such.module:build", "realignment.oracles.classifier:bild"])
def test_a_pipeline_that_cannot_be_imported_is_refused(path):
    with pytest.raises(ClassifierError, match=r"`classifier.pipeline` is .* cannot be imported"):
        train_judge(*exchanges(), pipeline=path)


def build_naive_bayes(seed):
    """Another pipeline, to be named by its path."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.naive_bayes import MultinomialNB
    from sklearn.pipeline import make_pipeline

    return make_pipeline(CountVectorizer(), MultinomialNB())


def test_any_pipeline_of_scikit_learn_can_be_named():
    trained, validation = train_judge(*exchanges(), pipeline=f"{__name__}:build_naive_bayes", folds=3)
    assert "multinomialnb" in trained.oracle.pipeline.named_steps
    assert validation.accuracy > 0.9


LABELLED = pd.DataFrame(
    {
        "prompt": ["a", "b", "c"], "response": ["x", "y", "z"], "complies": [True, False, None],
        "policy": ["advice-2", "advice-1", "advice-2"],
    }
)  # fmt: skip


def test_labels_are_answers_or_pairs_and_those_of_another_policy_are_left_out():
    assert labelled_table(LABELLED, POLICY) == ([Exchange("a", "x", None)], [True])
    assert labelled_table(LABELLED.drop(columns="policy"), POLICY)[1] == [True, False]
    pairs = make_pairs({"chosen_complies": True, "rejected_complies": None})
    assert labelled_table(pairs, POLICY) == ([Exchange("Prompt 0?", "chosen 0", None)], [True])


def test_a_table_without_labels_of_this_policy_is_refused():
    with pytest.raises(
        DataError, match=r"no label under advice-2.*Found columns: prompt, response, complies"
    ):
        labelled_table(LABELLED.assign(policy="advice-1"), POLICY)


@pytest.fixture(scope="module")
def labels(tmp_path_factory):
    """The first 120 pairs of the sample."""
    table = pd.read_json(ROOT / "data/01_raw/sample/pairs.jsonl", lines=True, dtype=False)
    file = tmp_path_factory.mktemp("labels") / "pairs.jsonl"
    table.head(120).to_json(file, orient="records", lines=True)
    return file


def test_trained_by_the_command_it_judges_pairs_that_it_has_not_seen(kedro_in_process, labels, tmp_path):
    done = kedro_in_process(
        "--pipelines", "train_classifier", data_root=tmp_path, classifier_labels=labels, classifier__folds=3
    )
    assert done.exit_code == 0, done.error
    report = json.loads(saved(tmp_path / "08_reporting/classifier_report.json").read_text())
    run = latest_run("train_classifier")
    assert run.data.metrics["classifier_report/calibrated.accuracy.value"] == pytest.approx(
        report["calibrated"]["accuracy"]["value"]
    )
    assert "classifier_folds/accuracy" in run.data.metrics
    judged = kedro_in_process(
        "--pipelines", "judging", data_root=tmp_path, judging__oracle="classifier", intake__limit=200
    )
    assert judged.exit_code == 0, judged.error
    oracle = json.loads(saved(tmp_path / "08_reporting/oracle_report.json").read_text())
    assert oracle["oracle"] == "classifier"
    assert oracle["accuracy"] > 0.8


def test_without_a_classifier_judging_says_how_to_make_one(kedro_in_process, tmp_path):
    refused = kedro_in_process("--pipelines", "judging", data_root=tmp_path, judging__oracle="classifier")
    assert refused.exit_code == 1
    assert "No classifier at" in refused.error
    assert Path(tmp_path / "06_models/classifier.joblib").name in refused.error
