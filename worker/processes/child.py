"""The forked process: trains one run or makes one short measurement, and reports the outcome to its supervisor.

The nursery imports this module and with it everything that a job needs. Nothing here may compute with torch at import:
OpenMP and CUDA do not work in a fork of a process in which they have started threads.
"""

import errno
import faulthandler
import signal
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Literal, cast

import structlog
import torch

import models.torchvision_compat  # noqa: F401 (torchvision takes seconds to import)
from models import files
from models.data.uploaded import open_dataset
from models.environment import Environment
from models.errors import CorruptFile, EpochalError, LeaseLost, Unavailable
from models.logs import configure_logs
from models.measurements import (
    CombinedQuestion,
    LearningRateRange,
    MeasurementResult,
    Question,
    RobustnessQuestion,
)
from models.notices import NoticeCode
from models.progress import TestResult
from models.settings import Settings
from models.store import Status, Store, artifacts, experiments, runs
from models.store.states import ArtifactKind, MeasurementKind
from worker.augmented import draw_augmented
from worker.combining import combine_runs
from worker.explain import explain
from worker.folders import attempt_folder, sweep
from worker.lease import claim_from_json
from worker.measure import measure_learning_rates, measure_spec
from worker.messages import MeasurementJob, OutcomeJson, Report, SettleOutcome, TrainJob
from worker.processes.channel import Channel
from worker.processes.dataset_jobs import run_dataset_job
from worker.robustness import measure_robustness
from worker.sink import StoreSink
from worker.training.engine import train
from worker.training.neighbours import Neighbours
from worker.training.sink import Outcome
from worker.training.thread_control import ThreadControl
from worker.training.threads import ThreadHistory
from worker.training.tuning import resolve_device

log = structlog.get_logger(__name__)

Word = Literal["cancel", "shutdown", "stop"]

OUT_OF_MEMORY = "the training process ran out of memory"
OUT_OF_MEMORY_SIGNS = ("can't allocate memory", "out of memory", "not enough memory", "bad_alloc", "ALLOC_FAILED")
OOM_SCORE_ADJ = "500"
"""Makes the kernel kill a training process, not the worker or the API, when memory runs out."""


class StoppedEarly(BaseException):
    """A cancel or shutdown arrived before training began to poll for orders."""


class Orders:
    """Receives the supervisor's orders. SIGTERM announces an order; without one it means a shutdown."""

    def __init__(self, channel: Channel) -> None:
        self.word: Word | None = None
        self._channel = channel
        self._polled = False
        signal.signal(signal.SIGTERM, self._take)

    def polled(self) -> None:
        """Switch to polling: `word` is read after every step from now on; before, an order raises StoppedEarly."""
        self._polled = True
        if self.ending:
            raise StoppedEarly

    @property
    def ending(self) -> bool:
        """Whether the process is to end as soon as it can; "stop" lets it finish what it does at a run's end."""
        return self.word in ("cancel", "shutdown")

    def _take(self, _: int, __: FrameType | None) -> None:
        order = self._channel.order()
        self.word = "cancel" if order == "cancel" else "stop" if order == "stop" else "shutdown"
        if not self._polled and self.ending:
            self._polled = True  # a second signal must not interrupt the report of the first
            raise StoppedEarly


def run_job(orders: int, reports: int) -> int:
    """Run the job that the first line describes. Returns the exit code."""
    faulthandler.enable()
    configure_logs()
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(OOM_SCORE_ADJ)
    channel = Channel(orders, reports)
    job = channel.job()
    settings = Settings(**job["settings"])
    match job["do"]:
        case "train":
            train_run(channel, settings, job)
        case "measurement":
            run_measurement(channel, settings, job)
        case "dataset":
            run_dataset_job(channel, settings, job)
        case "describe-device":
            describe_device(channel, settings)
    return 0


def train_run(channel: Channel, settings: Settings, job: TrainJob) -> None:
    """Train one run and report how it ended: settle, handed_back, retry or lost."""
    orders = Orders(channel)
    claim = claim_from_json(job["claim"])
    outcome: OutcomeJson
    try:
        outcome = _ended(_train(channel, settings, claim, orders))
    except StoppedEarly:
        outcome = _settled(Status.CANCELLED) if orders.word == "cancel" else {"kind": "handed_back"}
    except LeaseLost:
        outcome = {"kind": "lost"}
    except Unavailable as error:  # a cancel or shutdown ended the wait for the database
        if orders.word == "cancel":
            outcome = _settled(Status.CANCELLED)
        else:
            outcome = {"kind": "handed_back", "reason": error.detail}
    except EpochalError as error:
        outcome = _settled(Status.FAILED, f"{error.detail}. What to do: {error.fix}" if error.fix else error.detail)
    except Exception as error:  # any other error ends the attempt and is reported
        if is_out_of_memory(error):
            outcome = _settled(Status.FAILED, f"{OUT_OF_MEMORY}: {_first_line(error)}")
        else:
            log.exception("training failed", experiment=claim.experiment_id, attempt=claim.attempt)
            outcome = {"kind": "retry", "reason": f"training failed: {type(error).__name__}: {_first_line(error)}"}
    channel.report_outcome({"outcome": outcome})


def _train(channel: Channel, settings: Settings, claim: runs.Claim, orders: Orders) -> Outcome:
    store = Store(settings)
    sink = StoreSink(store, claim, settings.experiments_dir, channel.report, lambda: orders.ending)
    records = sink.read(lambda session: artifacts.list_for(session, claim.experiment_id))
    original = sink.read(lambda session: experiments.original_of(session, claim.experiment_id))
    repeated = ThreadHistory.of_environment(cast(Environment | None, original.environment)) if original else None
    sweep(settings.experiments_dir, claim.experiment_id, records, claim.attempt)
    checkpoints = _whole_checkpoints(sink, claim, settings.experiments_dir)
    dataset = open_dataset(claim.spec.dataset, settings, sink.fetching)
    orders.polled()
    return train(
        claim.spec,
        dataset,
        sink,
        attempt_folder(settings.experiments_dir, claim.experiment_id, claim.attempt),
        device=settings.device,
        checkpoints=checkpoints,
        should_stop=lambda: orders.word,
        cache_dir=settings.cache_dir,
        thread_control=ThreadControl(Neighbours([settings.data_dir]), replay=repeated),
        cuda_graphs=settings.cuda_graphs,
        initial=_initial_weights(claim, records, settings.experiments_dir),
    )


def _initial_weights(claim: runs.Claim, records: list[artifacts.ArtifactRecord], experiments_dir: Path) -> Path | None:
    """The file of weights that the experiment starts from, if its spec names some. Raises CorruptFile."""
    wanted = claim.spec.model.init_from
    if wanted is None:
        return None
    record = next((record for record in records if record.kind is ArtifactKind.WEIGHTS_INITIAL), None)
    if record is None:
        raise CorruptFile(f"the weights of experiment {wanted.experiment} that this one starts from are not stored")
    path = record.file(experiments_dir)
    files.verify(path, record.sha256)
    return path


def _whole_checkpoints(sink: StoreSink, claim: runs.Claim, experiments_dir: Path) -> list[Path]:
    """The checkpoints whose digest matches, newest first. Sends a notice for each of the others."""
    whole = []
    for record in claim.checkpoints:
        path = record.file(experiments_dir)
        try:
            files.verify(path, record.sha256)
        except CorruptFile as error:
            text = f"The checkpoint of epoch {record.epoch} is skipped: {error.detail}"
            sink.notice(NoticeCode.CHECKPOINT_UNUSABLE, text, {"file": path.name, "epoch": record.epoch})
        else:
            whole.append(path)
    return whole


def _ended(outcome: Outcome) -> OutcomeJson:
    if outcome.status == "handed_back":
        return {"kind": "handed_back"}
    return _settled(Status(outcome.status), outcome.reason, outcome.test)


def _settled(status: Status, reason: str | None = None, test: TestResult | None = None) -> SettleOutcome:
    return {"kind": "settle", "status": status.value, "reason": reason, "test": test}


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error or its cause means out of memory. Torch's CPU allocator raises a plain RuntimeError."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    if isinstance(error, RuntimeError) and any(sign in str(error) for sign in OUT_OF_MEMORY_SIGNS):
        return True
    return error.__cause__ is not None and is_out_of_memory(error.__cause__)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:500]


def run_measurement(channel: Channel, settings: Settings, job: MeasurementJob) -> None:
    """Make a measurement and report its result, or the reason for its failure."""
    answer: Report
    try:
        answer = {"result": _measure(job, settings)}
    except EpochalError as error:
        answer = {"reason": error.detail}
    except Exception as error:
        log.exception("measurement failed", kind=job["kind"])
        reason = f"{type(error).__name__}: {_first_line(error)}"
        answer = {"reason": f"the network does not fit into memory: {reason}" if is_out_of_memory(error) else reason}
    channel.report_outcome(answer)


def _measure(job: MeasurementJob, settings: Settings) -> MeasurementResult:
    match MeasurementKind(job["kind"]):
        case MeasurementKind.PREFLIGHT:
            return measure_spec(job["spec"], settings)
        case MeasurementKind.AUGMENTED:
            return draw_augmented(job["spec"], settings)
        case MeasurementKind.LR_TEST:
            return measure_learning_rates(job["spec"], cast(LearningRateRange | None, job["options"]), settings)
        case MeasurementKind.EXPLANATION:
            assert job["options"] is not None
            return explain(cast(Question, job["options"]), settings)
        case MeasurementKind.COMBINED:
            return combine_runs(job["spec"], cast(CombinedQuestion, job["options"]), settings)
        case MeasurementKind.ROBUSTNESS:
            return measure_robustness(job["spec"], cast(RobustnessQuestion, job["options"]), settings)


def describe_device(channel: Channel, settings: Settings) -> None:
    """Report the device that this worker trains on."""
    device = resolve_device(settings.device)
    name = f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)
    channel.report_outcome({"device": name})
