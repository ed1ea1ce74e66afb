"""Kedro's settings of this project."""

from pathlib import Path
from typing import Any

from kedro.config import OmegaConfigLoader
from kedro.utils import find_kedro_project

from realignment import methods
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


class MethodConfigLoader(OmegaConfigLoader):
    """Kedro's loader, which lays the recipe of the parameter `method` over the parameters of the files.

    What the command line gives counts more than the recipe, the recipe more than the files.
    """

    def __getitem__(self, key: str) -> Any:
        """Load a part of the configuration.

        Args:
            key: Kedro's name of it.

        Returns:
            As Kedro loads it; parameters with the recipe.

        Raises:
            MethodError: There is no such method, or it has nothing to train.
        """
        config = super().__getitem__(key)
        if key != "parameters" or config.get("method", methods.DEFAULT) == methods.DEFAULT:
            return config
        recipe = methods.load_recipe(config["method"], Path(self.conf_source) / "base" / "methods")
        if not recipe.trains:
            raise methods.MethodError(
                f"The method `{config['method']}` trains nothing. It can be compared with others "
                "(`baselines.methods`), and not be run by itself."
            )
        return methods.apply_recipe(config, recipe, self.runtime_params or {})


HOOKS = (LoggingHooks(), ParameterGuard(), StageTimer(), MlflowHooks())
CONFIG_LOADER_CLASS = MethodConfigLoader
CONFIG_LOADER_ARGS = {
    "base_env": "base",
    "default_run_env": "local",
    "config_patterns": {"mlflow": ["mlflow*", "mlflow*/**", "**/mlflow*"]},
    "custom_resolvers": {"in_project": resolve_project_path, "policy_file": resolve_policy_file},
    # An environment changes the keys that it names and keeps the others.
    "merge_strategy": {"parameters": "soft", "globals": "soft", "mlflow": "soft"},
}
