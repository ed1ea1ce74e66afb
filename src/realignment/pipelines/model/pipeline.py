"""The base model becomes a local folder."""

from kedro.pipeline import Node, Pipeline

from realignment.pipelines.model import nodes


def create_pipeline(**_: object) -> Pipeline:
    """params:model → reference_model."""
    return Pipeline(
        [Node(nodes.fetch_reference_model, "params:model", "reference_model", name="fetch_reference_model")],
        namespace="model",
        prefix_datasets_with_namespace=False,
    )
