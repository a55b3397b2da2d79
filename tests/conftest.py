"""Fixtures of all tests: isolated from the environment's settings and from this user's own lab."""

import os
import shutil
import tempfile
from itertools import zip_longest
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from xdist.scheduler import LoadFileScheduling

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before anything imports onnxruntime, as service.predictions does
os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # before anything imports torch: several trainings share the cores
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny networks wait for a second thread longer than it helps them

MEMORY = Path("/dev/shm")
ROOM = 4 << 30
if "TMPDIR" not in os.environ and MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > ROOM:
    # The lab flushes what it writes to the disk, thousands of times in all tests together: 4 ms each on a disk.
    os.environ["TMPDIR"] = str(MEMORY)
    tempfile.tempdir = None  # pytest has asked for it before

# The same examples in every run; `--hypothesis-profile default` draws new ones.
hypothesis.settings.register_profile("same-examples", derandomize=True, database=None)
hypothesis.settings.load_profile("same-examples")

TESTS = Path(__file__).parent
LABS = (TESTS / "system", TESTS / "worker")
"""Folders of the tests that start workers."""
OWN_LABS = {"test_machines.py", "test_up.py", "test_upgrade.py", "test_database_outages.py"}
"""Modules that start labs of their own. The other modules of a folder that use its lab share it within a process."""
TOGETHER = (
    {"test_dataset_worker.py", "test_measurer.py", "test_runs.py", "test_threads.py"},
    {"test_lifecycle.py", "test_queue_faults.py", "test_storage_faults.py"},
)
"""Modules of tests/worker that one process runs one after the other: starting a worker takes eight seconds."""

LONG = (
    "service/http/test_openapi.py",
    "models/test_queue.py",
    "worker/training/test_engine.py",
    "worker/training/batches/test_accumulation.py",
    "service/http/test_perimeter.py",
    "service/datasets/test_routes.py",
    "models/verdict/test_consistency.py",
    "models/networks/test_describe.py",
    "models/networks/test_export.py",
    "service/studies/test_routes.py",
    "service/catalogue/test_describing.py",
    "service/cli/test_unpacking.py",
)
"""The longest modules that compute: they begin first, as one that came last would leave the other cores idle."""

KEPT = ("EPOCHAL_CACHE_DIR", "EPOCHAL_TEST_POSTGRES")


def pytest_configure(config: pytest.Config) -> None:
    """Tests see the defaults, whatever the shell exports; only the cache of datasets is shared with the user."""
    for name in [name for name in os.environ if name.startswith("EPOCHAL_") and name not in KEPT]:
        del os.environ[name]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With several processes, modules that start a lab come early, one for every module that computes.

    They take minutes and mostly wait; one that came last would leave the other cores idle.
    """
    if not hasattr(config, "workerinput"):
        return
    modules: dict[Path, list[pytest.Item]] = {}
    for item in items:
        modules.setdefault(item.path, []).append(item)
    labs = sorted((path for path in modules if path.parent in LABS), key=lambda path: LABS.index(path.parent))
    others = [path for path in modules if path.parent not in LABS]
    others.sort(key=lambda path: path not in {TESTS / name for name in LONG})
    order = [path for pair in zip_longest(labs, others) for path in pair if path is not None]
    items[:] = [item for path in order for item in modules[path]]


class OneLab(LoadFileScheduling):  # type: ignore[misc]
    """Distributes modules over the processes, and those that share a lab as one."""

    def _split_scope(self, nodeid: str) -> str:
        module = Path(nodeid.partition("::")[0])
        if module.match("tests/system/*.py") and module.name not in OWN_LABS:
            return "tests/system"
        return next((str(sorted(names)) for names in TOGETHER if module.name in names), str(module))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling | None:
    """Chosen for `--dist loadfile`."""
    return OneLab(config, log) if config.getoption("dist") == "loadfile" else None


@pytest.fixture(autouse=True)
def _own_data_directory(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lab that a test forgets to place lands in a temporary folder."""
    monkeypatch.setenv("EPOCHAL_DATA_DIR", str(tmp_path_factory.getbasetemp() / "unplaced"))
