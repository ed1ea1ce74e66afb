"""Kedro's settings of this project."""

from pathlib import Path

from kedro.config import OmegaConfigLoader
from kedro.utils import find_kedro_project

from realignment.hooks import LoggingHooks, MlflowHooks, ParameterGuard, StageTimer


def in_project(path: str) -> str:
    """A path of the configuration, from the project's folder and not from where the command was typed."""
    here = Path(__file__).resolve().parent
    root = find_kedro_project(here) or find_kedro_project(Path.cwd()) or Path.cwd()
    return str(Path(root) / path)


def policy_file(name: str, data_root: str) -> str:
    """Where the policy of that name lies: a path as it is, `inferred` where `infer_policy` leaves it."""
    if name == "inferred":
        return f"{data_root}/08_reporting/inferred_policy.yml"
    return name if name.endswith((".yml", ".yaml")) else f"conf/base/policies/{name}.yml"


HOOKS = (LoggingHooks(), ParameterGuard(), StageTimer(), MlflowHooks())
CONFIG_LOADER_CLASS = OmegaConfigLoader
CONFIG_LOADER_ARGS = {
    "base_env": "base",
    "default_run_env": "local",
    "config_patterns": {"mlflow": ["mlflow*", "mlflow*/**", "**/mlflow*"]},
    "custom_resolvers": {"in_project": in_project, "policy_file": policy_file},
    # An environment changes the keys that it names and keeps the others.
    "merge_strategy": {"parameters": "soft", "globals": "soft", "mlflow": "soft"},
}
