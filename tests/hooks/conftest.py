import pytest
from mlflow_store import tracking_uri
from tiny_project import make_project


@pytest.fixture(autouse=True, scope="module")
def _tracking_environment():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", tracking_uri())
        patch.delenv("MLFLOW_RUN_ID", raising=False)
        yield


@pytest.fixture
def project(tmp_path):
    return make_project(tmp_path)
