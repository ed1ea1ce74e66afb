"""Labelled responses → a calibrated classifier, and how good it is."""

from kedro.pipeline import Node, Pipeline

from realignment.pipelines.train_classifier import nodes


def create_pipeline(**_: object) -> Pipeline:
    """classifier_labels → classifier, classifier_report."""
    return Pipeline(
        [
            Node(
                nodes.train_classifier,
                ["classifier_labels", "policy", "params:classifier", "params:seed"],
                ["classifier", "classifier_report", "classifier_folds", "classifier_reliability"],
                name="train_classifier",
            ),
            Node(
                nodes.draw_classifier_reliability,
                "classifier_reliability",
                "classifier_figure",
                name="draw_classifier_reliability",
            ),
        ],
        namespace="classifier",
        prefix_datasets_with_namespace=False,
    )
