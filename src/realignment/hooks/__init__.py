"""Kedro hooks: what the person at the terminal sees, and the MLflow run of every `kedro run`."""

from realignment.hooks.mlflow_run import MlflowHooks
from realignment.hooks.parameter_guard import ParameterGuard, UnknownParameterError
from realignment.hooks.stage_timer import StageTimer
from realignment.hooks.terminal import LoggingHooks

__all__ = ["LoggingHooks", "MlflowHooks", "ParameterGuard", "StageTimer", "UnknownParameterError"]
