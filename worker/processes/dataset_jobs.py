"""Does a dataset's job in the forked process: imports an archive, changes a version, or checks one."""

import re
import time
from functools import partial
from pathlib import Path

import structlog

from models.data.catalogue import DATASETS
from models.data.changing import change_version
from models.data.dataset import load_dataset, load_folder
from models.data.description import JobOptions
from models.data.health import HealthReport, health_report
from models.data.importing.engine import import_archive
from models.data.importing.files import read_files
from models.data.importing.options import ImportOptions
from models.data.uploaded import version_folder
from models.errors import EpochalError
from models.networks.pretrained import load_pretrained
from models.settings import Settings
from models.spec.torchvision_names import ZooName
from worker.messages import DatasetJob, Report
from worker.processes.channel import Channel

log = structlog.get_logger(__name__)

REPORT_SECONDS = 0.25
ESTIMATE_SECONDS = 1.0
"""Seconds of a phase after which its speed is known well enough for an estimate."""


def run_dataset_job(channel: Channel, settings: Settings, payload: DatasetJob) -> None:
    """Do the job and report its result, or the problem that ended it."""
    answer: Report
    try:
        answer = _do(channel, settings, payload)
    except EpochalError as error:
        answer = {"problem": error.as_problem()}
    except Exception as error:
        log.exception("a job of a dataset failed", kind=payload["kind"], dataset=payload["dataset"])
        line = (str(error).strip().splitlines() or [""])[0][:500]
        failed = EpochalError(f"{type(error).__name__}: {line}", fix="see the worker's log")
        answer = {"problem": failed.as_problem()}
    channel.report_outcome(answer)


class _Reporter:
    """Passes progress on to the supervisor, a few times a second, with an estimate of the rest of the phase."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._next = self._began = 0.0
        self._first = 0
        self._phase = ""

    def __call__(self, phase: str, done: int, total: int) -> None:
        now = time.monotonic()
        if phase != self._phase:
            self._phase, self._began, self._first = phase, now, done
        elif now < self._next:
            return
        self._next = now + REPORT_SECONDS
        left = seconds_left(now - self._began, done - self._first, total - done)
        self._channel.report({"dataset_progress": {"phase": phase, "done": done, "total": total, "seconds_left": left}})


def seconds_left(elapsed: float, done: int, left: int) -> float | None:
    """The rest of a phase at its speed so far, in seconds; None before there is one.

    `done` counts what was done in the `elapsed` seconds, without what an earlier attempt had done.
    """
    if elapsed < ESTIMATE_SECONDS or done <= 0 or left < 0:
        return None
    return round(elapsed * left / done, 1)


def _do(channel: Channel, settings: Settings, payload: DatasetJob) -> Report:
    progress = _Reporter(channel)
    options, place = payload["options"], Path(payload["staging"]) / "dataset"
    if payload["kind"] == "import":
        asked = ImportOptions(name=payload["dataset"], **options["import"])
        report = import_archive(_named(settings, options, Path(payload["staging"])), place, asked, progress)
        return {"dataset_report": report.as_json()}
    if payload["kind"] == "health":
        return {"health_report": _check(payload["dataset"], payload["version"], settings, progress).as_json()}
    source = version_folder(settings.datasets_dir, payload["dataset"], options["made_of"])
    relabelled = {int(image): int(label) for image, label in options["relabel"]}
    return {"dataset_report": change_version(source, place, relabelled, options["drop"], progress)}


def _check(name: str, version: int, settings: Settings, progress: _Reporter) -> HealthReport:
    weights = partial(load_pretrained, ZooName.SQUEEZENET1_1, settings.cache_dir)
    if name in DATASETS:
        dataset = load_dataset(name, settings, lambda what, done, total: progress(what, done, total or 0))
        return health_report(dataset, (), progress, load_weights=weights)
    folder = version_folder(settings.datasets_dir, name, version)
    return health_report(load_folder(folder), read_files(folder), progress, load_weights=weights)


def _named(settings: Settings, options: JobOptions, staging: Path) -> Path:
    """The archive under the name that it was sent by, which messages say: a link to where it is kept."""
    link = staging / (re.sub(r"[^\w.() -]", "_", str(options.get("filename", "")))[-100:].lstrip(".") or "the archive")
    link.unlink(missing_ok=True)
    link.symlink_to(settings.uploads_dir / options["archive"])
    return link
