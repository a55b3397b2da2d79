"""Invariants checked after every case."""

import os
import time
from pathlib import Path

import psutil
from safetensors import SafetensorError, safe_open
from sqlalchemy import select

from benchmarks.faults.harness import Bench, patience
from models.errors import CorruptFile
from models.files import verify
from models.store import Status, artifacts, history, measurements
from models.store.artifacts import ArtifactRecord
from models.store.states import UNFINISHED, ArtifactKind, RunStatus
from models.store.tables import Experiment, Measurement, Run
from service.predictions.session import start_session
from worker.folders import STORED

LONGEST_HEALTHZ_SECONDS = 1.0
SETTLING_SECONDS = 30.0
"""Time limit for a lab's rows, processes and files to settle after a case."""


def inconsistencies(bench: Bench, allowed: frozenset[int]) -> list[str]:
    """Violated invariants, in sentences. `allowed` are the statuses above 499 that the case may cause."""
    wrong = [
        f"{what} was answered {status}" for what, status in bench.client.seen if status >= 500 and status not in allowed
    ]
    if bench.healthz.slowest_seconds > patience(LONGEST_HEALTHZ_SECONDS):
        load, cores = os.getloadavg()[0], len(os.sched_getaffinity(0))
        slowest, at = bench.healthz.slowest_seconds, bench.healthz.slowest_at
        wrong.append(f"/healthz took {slowest:.2f} s, {at:.0f} s into the case (load {load:.0f} on {cores} cores)")
    if bench.healthz.unanswered:
        wrong.append(f"/healthz failed {len(bench.healthz.unanswered)} times: {bench.healthz.unanswered[0]}")
    began = time.monotonic()
    while (unrest := _unrest(bench)) and time.monotonic() - began < patience(SETTLING_SECONDS):
        time.sleep(0.1)
    return [*wrong, *unrest, *_histories(bench), *_files(bench)]


def leftovers(bench: Bench) -> list[str]:
    """Processes and files that a stopped lab has left."""
    left = [f"process {one.pid} ({' '.join(one.cmdline()[-3:])}) outlived the lab" for one in _processes(bench)]
    data = bench.settings.data_dir
    left += [f"{path.name} was left" for path in data.rglob("*") if path.is_socket()]
    if (data / "lab.json").exists():
        left.append("lab.json was left")
    return left + _temporary(bench)


def _unrest(bench: Bench) -> list[str]:
    """Rows, processes and temporary files that may need some seconds to end."""
    return [*_unfinished(bench), *_strangers(bench), *_temporary(bench)]


def _unfinished(bench: Bench) -> list[str]:
    with bench.store.reading() as session:
        active = session.scalars(select(Experiment).where(Experiment.status.in_(UNFINISHED))).all()
        open_runs = session.scalars(select(Run).where(Run.status == RunStatus.RUNNING)).all()
        ended = session.scalars(select(Run).where(Run.status != RunStatus.RUNNING, Run.ended_at.is_(None))).all()
        unfinished = select(Measurement).where(Measurement.status.in_(measurements.UNFINISHED))
        open_measurements = session.scalars(unfinished).all()
    return [
        *(f"experiment {one.id} is still {one.status}" for one in active),
        *(f"run {one.id} of experiment {one.experiment_id} is still open" for one in open_runs),
        *(f"run {one.id} has ended at no time" for one in ended),
        *(f"measurement {one.id} is still {one.status}" for one in open_measurements),
    ]


def _processes(bench: Bench) -> list[psutil.Process]:
    """Every process that was started for this lab, recognised by its environment, whatever its parent."""
    mark = str(bench.settings.data_dir)
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and process.environ().get("EPOCHAL_DATA_DIR") == mark:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, OSError):
            continue
    return found


def _strangers(bench: Bench) -> list[str]:
    """Processes below none of the lab's parts, training processes though nothing trains, zombies."""
    parts = [part.pid for part in bench.lab.parts] + [worker.pid for worker in bench.extra_workers]
    belonging: set[int] = set()
    wrong = []
    for pid in parts:
        if pid is None:
            continue
        try:
            process = psutil.Process(pid)
            below = process.children(recursive=True)
            wrong += [f"{one.pid} is a zombie" for one in below if one.status() == psutil.STATUS_ZOMBIE]
        except psutil.NoSuchProcess:
            continue
        belonging |= {pid, *(one.pid for one in process.children())}
    return wrong + [f"process {one.pid} is an orphan" for one in _processes(bench) if one.pid not in belonging]


def _temporary(bench: Bench) -> list[str]:
    folders = (bench.settings.experiments_dir, bench.temporary)
    hidden = list(folders[0].rglob(".*")) if folders[0].exists() else []
    spooled = [path for path in folders[1].rglob("*") if path.is_file()]
    return [f"the temporary file {path.name} was left" for path in (*hidden, *spooled)]


def _histories(bench: Bench) -> list[str]:
    wrong = []
    with bench.store.reading() as session:
        for number in session.scalars(select(Experiment.id)).all():
            epochs = [metrics.epoch for metrics in history.read(session, number)]
            if epochs != list(range(1, len(epochs) + 1)):
                wrong.append(f"experiment {number} has the epochs {epochs}")
            experiment = session.get_one(Experiment, number)
            if experiment.status is Status.COMPLETED and not epochs:
                wrong.append(f"experiment {number} has completed without an epoch")
    return wrong


def _files(bench: Bench) -> list[str]:
    """Every recorded file is whole and loads, a graph with each of its weights; no stored file is without a record."""
    wrong = []
    with bench.store.reading() as session:
        numbers = session.scalars(select(Experiment.id)).all()
        records = [record for number in numbers for record in artifacts.list_for(session, number)]
    recorded = set()
    for record in records:
        path = record.file(bench.settings.experiments_dir)
        recorded.add(path)
        try:
            verify(path, record.sha256)
            if record.kind is ArtifactKind.GRAPH:
                _start_sessions(
                    path,
                    [each.file(bench.settings.experiments_dir) for each in _weights(records, record.experiment_id)],
                )
            elif record.kind is not ArtifactKind.CHECKPOINT:
                _open_tensors(path)
        except (CorruptFile, OSError, SafetensorError) as error:
            wrong.append(f"{record.kind} of experiment {record.experiment_id} does not load: {error}")
    stored = set(bench.settings.experiments_dir.rglob(f"{STORED}*"))
    return wrong + [f"{path.name} is stored without a record" for path in sorted(stored - recorded)]


def _weights(records: list[ArtifactRecord], experiment_id: int) -> list[ArtifactRecord]:
    kinds = (ArtifactKind.WEIGHTS_BEST, ArtifactKind.WEIGHTS_LAST)
    return [each for each in records if each.experiment_id == experiment_id and each.kind in kinds]


def _start_sessions(graph: Path, weights: list[Path]) -> None:
    for path in weights:
        start_session(graph.read_bytes(), path.read_bytes())


def _open_tensors(path: Path) -> None:
    with safe_open(path, framework="numpy") as file:
        for name in file.keys():  # noqa: SIM118 (not a dictionary)
            file.get_tensor(name)
