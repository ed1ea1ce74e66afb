"""One MLflow database for the whole test session: making its tables takes seconds."""

import tempfile
from functools import cache
from pathlib import Path

from mlflow import MlflowClient


@cache
def tracking_uri() -> str:
    return f"sqlite:///{Path(tempfile.mkdtemp(prefix='mlflow-')) / 'mlflow.db'}"


def client() -> MlflowClient:
    return MlflowClient(tracking_uri=tracking_uri(), registry_uri=tracking_uri())
