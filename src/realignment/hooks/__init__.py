"""Kedro hooks: what the person at the terminal sees, and the MLflow run of every `kedro run`."""

from realignment.hooks.mlflow_run import MlflowHooks
from realignment.hooks.terminal import LoggingHooks, ParameterGuard, StageTimer

__all__ = ["LoggingHooks", "MlflowHooks", "ParameterGuard", "StageTimer"]
