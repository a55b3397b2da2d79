"""Fixtures of all tests: isolated from the environment's settings and from this user's own lab."""

import os

import hypothesis
import pytest

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before anything imports onnxruntime, as service.predictions does
os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # before anything imports torch: several trainings share the cores

# The same examples in every run; `--hypothesis-profile default` draws new ones.
hypothesis.settings.register_profile("same-examples", derandomize=True, database=None)
hypothesis.settings.load_profile("same-examples")

KEPT = ("EPOCHAL_CACHE_DIR", "EPOCHAL_TEST_POSTGRES")


def pytest_configure(config: pytest.Config) -> None:
    """Tests see the defaults, whatever the shell exports; only the cache of datasets is shared with the user."""
    for name in [name for name in os.environ if name.startswith("EPOCHAL_") and name not in KEPT]:
        del os.environ[name]


@pytest.fixture(autouse=True)
def _own_data_directory(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lab that a test forgets to place lands in a temporary folder."""
    monkeypatch.setenv("EPOCHAL_DATA_DIR", str(tmp_path_factory.getbasetemp() / "unplaced"))
