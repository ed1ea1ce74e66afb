"""Methods by name: each a recipe, which is what it changes of the parameters, in one YAML file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError

from realignment.parameters.base import Parameters
from realignment.records import RealignmentError

DEFAULT = "trace"
"""The method whose parameters are those of the configuration."""

SECTIONS = ("loss", "impact", "gold", "training")
"""Sections of the parameters that a recipe may change."""


class MethodError(RealignmentError):
    """A method that there is not, or a recipe that cannot be used."""


class Recipe(Parameters):
    """A method: where it comes from, and what it changes of the parameters.

    Composed of the pieces that all methods share: what becomes of each kind of pair (`loss.plans`), which
    losses and which weights of them (`loss`), impact weights (`impact`), and how it is trained.
    """

    title: str = Field(min_length=1, description="Its name in tables and figures")
    source: str = Field(min_length=1, description="Paper and equation")
    summary: str = Field(min_length=1, description="What it does with the pairs, in a sentence or two")
    trains: bool = Field(True, description="false: the reference itself is evaluated")
    policy_in_context: bool = Field(False, description="The new policy is the system prompt of its answers")
    loss: dict[str, Any] = Field({}, description="Changes of `loss`")
    impact: dict[str, Any] = Field({}, description="Changes of `impact`")
    gold: dict[str, Any] = Field({}, description="Changes of `gold`")
    training: dict[str, Any] = Field({}, description="Changes of `training`")


def list_methods(folder: Path) -> list[str]:
    """Return the names of all recipes in a folder, sorted."""
    return sorted(path.stem for path in folder.glob("*.yml"))


def load_recipe(name: str, folder: Path) -> Recipe:
    """Read a recipe.

    Args:
        name: The name of a file in the folder without its suffix.
        folder: Folder of the recipes.

    Returns:
        The recipe; its changes are checked where the parameters are.

    Raises:
        MethodError: There is no such file, or it is no recipe.
    """
    path = folder / f"{name}.yml"
    if not path.is_file():
        raise MethodError(
            f"There is no method `{name}`: {folder} has no file {path.name}. Known: "
            f"{', '.join(list_methods(folder)) or 'none'}."
        )
    try:
        return Recipe.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (yaml.YAMLError, ValidationError) as error:
        raise MethodError(
            f"{path} is no recipe of a method: {error}. Expected title, source and summary, and what it "
            f"changes of {', '.join(SECTIONS)}."
        ) from error


def apply_recipe(
    parameters: Mapping[str, Any], recipe: Recipe, overrides: Mapping[str, Any]
) -> dict[str, Any]:
    """Change parameters as a recipe says.

    Args:
        parameters: Sections by name.
        recipe: Its changes are merged into the sections, mapping by mapping; any other value is replaced.
        overrides: What the command line gives, which counts more than the recipe.

    Returns:
        New parameters.
    """
    changes = {name: getattr(recipe, name) for name in SECTIONS}
    return merge(merge(parameters, {name: part for name, part in changes.items() if part}), overrides)


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the base with the changes, where mappings are merged key by key."""
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        # A plan has one treatment: another one replaces it, and is not added to it.
        if isinstance(old, Mapping) and isinstance(value, Mapping) and not _is_plan(value):
            value = merge(old, value)
        merged[key] = value
    return merged


def _is_plan(value: Mapping[str, Any]) -> bool:
    return len(value) == 1 and isinstance(next(iter(value.values())), list | tuple)
