"""Kedro's settings of this project."""

from pathlib import Path

from kedro.config import OmegaConfigLoader
from kedro.utils import find_kedro_project

from realignment.hooks import LoggingHooks, MlflowHooks, ParameterGuard, StageTimer


def resolve_project_path(path: str) -> str:
    """Return a path of the configuration, relative to the project's folder, as an absolute path.

    Args:
        path: Relative to the project's folder, and not to where the command was typed.

    Returns:
        An absolute path; one that was absolute is returned as it is.
    """
    package = Path(__file__).resolve().parent
    # An installed package lies outside of the project: then the command is typed in the project.
    root = find_kedro_project(package) or find_kedro_project(Path.cwd()) or Path.cwd()
    return str(Path(root) / path)


def resolve_policy_file(name: str, data_root: str) -> str:
    """Return the file of a policy.

    Args:
        name: A path, the name of a file in `conf/base/policies`, or `inferred`.
        data_root: Folder of everything that a run writes.

    Returns:
        For `inferred` the entry that `infer_policy` writes.
    """
    if name == "inferred":
        return f"{data_root}/08_reporting/inferred_policy.yml"
    return name if name.endswith((".yml", ".yaml")) else f"conf/base/policies/{name}.yml"


HOOKS = (LoggingHooks(), ParameterGuard(), StageTimer(), MlflowHooks())
CONFIG_LOADER_CLASS = OmegaConfigLoader
CONFIG_LOADER_ARGS = {
    "base_env": "base",
    "default_run_env": "local",
    "config_patterns": {"mlflow": ["mlflow*", "mlflow*/**", "**/mlflow*"]},
    "custom_resolvers": {"in_project": resolve_project_path, "policy_file": resolve_policy_file},
    # An environment changes the keys that it names and keeps the others.
    "merge_strategy": {"parameters": "soft", "globals": "soft", "mlflow": "soft"},
}
