import pytest
from tiny_project import run

from realignment.hooks.parameter_guard import ParameterGuard, UnknownParameterError


@pytest.mark.parametrize("params", [{"triage": {"min_confidence": 0.9}}, {"data_root": "data"}])
def test_parameters_of_the_configuration_and_of_the_catalog_are_known(project, params):
    run(project, "triage", version="known", params=params, hooks=(ParameterGuard(),))


def test_an_unknown_parameter_is_refused_with_its_nearest_name(project):
    with pytest.raises(UnknownParameterError, match=r"Unknown parameter 'traige'\. Did you mean triage\?"):
        run(project, "triage", version="unknown", params={"traige": {"min_confidence": 0.9}})
