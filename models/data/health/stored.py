"""health.json beside the arrays of a dataset's version: what the check of its images found, or why it failed."""

import json
from dataclasses import dataclass
from pathlib import Path

from models.data.health.report import HealthReport
from models.errors import ProblemJson
from models.files import write

HEALTH = "health.json"


@dataclass(frozen=True)
class StoredCheck:
    """A check that has ended: its report, or the problem that ended it."""

    report: HealthReport | None = None
    problem: ProblemJson | None = None


def write_check(folder: Path, check: StoredCheck) -> None:
    """Store a check. Raises StorageFull."""
    members = {
        "dataset_report": None if check.report is None else check.report.as_json(),
        "problem": check.problem,
    }
    written = {name: value for name, value in members.items() if value is not None}
    write(folder / HEALTH, json.dumps(written).encode())


def read_check(folder: Path) -> StoredCheck | None:
    """The check of a version; None if there is none, or the file cannot be read, so that a new check is needed."""
    try:
        found = json.loads((folder / HEALTH).read_bytes())
        if "problem" in found:
            return StoredCheck(problem=found["problem"])
        return StoredCheck(report=HealthReport.from_json(found["dataset_report"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
