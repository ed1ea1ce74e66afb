"""Refuse runtime parameters that nothing reads."""

import difflib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import yaml
from kedro.config import OmegaConfigLoader
from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl

from realignment.records import RealignmentError

_RUNTIME_PARAMETER = re.compile(r"\$\{runtime_params:\s*(\w+)")


class UnknownParameterError(RealignmentError):
    """A runtime parameter that nothing reads: most likely a typo."""


class ParameterGuard:
    """Refuses `kedro run --params traning.epochs=2`: Kedro takes any name, and ignores what nothing reads."""

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Compare the runtime parameters with all names that the configuration declares or reads.

        Args:
            context: Of the run.

        Raises:
            UnknownParameterError: Names with their nearest matches.
        """
        loader = cast(OmegaConfigLoader, context.config_loader)
        runtime_names = set(loader.runtime_params or {})
        conf = Path(loader.conf_source)
        if not runtime_names or not conf.is_dir():  # a packed configuration is not opened for this
            return
        environment = context.env or loader.default_run_env or ""
        declared_names = set(_declared_names(conf / (loader.base_env or "")))
        declared_names.update(_declared_names(conf / environment))
        unknown_names = sorted(runtime_names - declared_names)
        if unknown_names:
            raise UnknownParameterError(_describe_unknown(unknown_names, sorted(declared_names)))


def _declared_names(folder: Path) -> Iterator[str]:
    """Names that the files of an environment declare as parameters, or read as `${runtime_params:NAME}`."""
    for file in sorted(folder.rglob("*.yml")):
        text = file.read_text(encoding="utf-8")
        yield from _RUNTIME_PARAMETER.findall(text)
        if any(part.startswith(("parameters", "globals")) for part in file.relative_to(folder).parts):
            yield from yaml.safe_load(text) or {}


def _describe_unknown(unknown_names: list[str], declared_names: list[str]) -> str:
    lines = []
    for name in unknown_names:
        matches = difflib.get_close_matches(name, declared_names, n=3)
        suggestion = f" Did you mean {' or '.join(matches)}?" if matches else ""
        lines.append(f"Unknown parameter '{name}'.{suggestion}")
    return "\n".join([*lines, f"Known are: {', '.join(declared_names)}."])
