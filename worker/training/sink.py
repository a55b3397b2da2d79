"""The interface that receives the engine's results, and `MemorySink`, which keeps them in lists."""

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from models.curves.metrics import EpochMetrics
from models.environment import Environment
from models.notices import NoticeCode, NoticeData
from models.progress import TestResult
from models.verdict import Verdict

ArtifactKind = Literal[
    "checkpoint",
    "weights-best",
    "weights-last",
    "weights-epoch",
    "graph",
    "kernels",
    "outputs-validation",
    "outputs-test",
]


class MetricSink(Protocol):
    """Receives a run's results while it trains.

    Nothing here may be slow: `progress` is called a few times a second, everything else about once an epoch. An
    exception raised by a sink ends the run and reaches the caller of `train`.
    """

    def append_epoch(self, metrics: EpochMetrics, class_accuracy: list[float | None] | None = None) -> None:
        """Receive the metrics of an epoch that has ended, and the validation accuracy of each class.

        Epochs come in order; a resumed run continues the series. There is no accuracy of a class without images, and
        none of any class where the epoch was not validated.
        """

    def progress(self, epoch: int, step: int, num_steps: int, images_per_second: float | None, phase: str) -> None:
        """Receive the progress within the epoch. `phase` is preparing, training, validating or testing."""

    def save(self, kind: ArtifactKind, epoch: int, path: Path) -> None:
        """Receive a file that was written atomically. `epoch` is 0 where a kind has one file only.

        A checkpoint of an epoch replaces an earlier one of the same epoch.
        """

    def retain(self, kind: ArtifactKind, epochs: Collection[int]) -> None:
        """Drop the files of a kind that are of other epochs."""

    def notice(self, code: NoticeCode, text: str, data: NoticeData) -> None:
        """Receive a message for the user."""

    def verdict(self, verdict: Verdict) -> None:
        """Receive the latest verdict."""

    def environment(self, environment: Environment) -> None:
        """Receive the run's environment."""


@dataclass
class MemorySink:
    """Keeps all results in lists; for tests and benchmarks."""

    epochs: list[EpochMetrics] = field(default_factory=list)
    class_accuracies: dict[int, list[float | None] | None] = field(default_factory=dict)
    saved: list[tuple[str, int, Path]] = field(default_factory=list)
    notices: list[tuple[NoticeCode, str, NoticeData]] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    environments: list[Environment] = field(default_factory=list)
    progresses: list[tuple[int, int, int, float | None, str]] = field(default_factory=list)

    def append_epoch(self, metrics: EpochMetrics, class_accuracy: list[float | None] | None = None) -> None:
        """Keep the metrics; an epoch that was trained again replaces what was there."""
        self.class_accuracies[metrics.epoch] = class_accuracy
        self.epochs = [known for known in self.epochs if known.epoch < metrics.epoch]
        self.epochs.append(metrics)

    def progress(self, epoch: int, step: int, num_steps: int, images_per_second: float | None, phase: str) -> None:
        """Keep the report."""
        self.progresses.append((epoch, step, num_steps, images_per_second, phase))

    def save(self, kind: ArtifactKind, epoch: int, path: Path) -> None:
        """Keep the file's name."""
        self.saved.append((kind, epoch, path))

    def retain(self, kind: ArtifactKind, epochs: Collection[int]) -> None:
        """Forget the names of the others."""
        self.saved = [one for one in self.saved if one[0] != kind or one[1] in epochs]

    def notice(self, code: NoticeCode, text: str, data: NoticeData) -> None:
        """Keep the message."""
        self.notices.append((code, text, data))

    def verdict(self, verdict: Verdict) -> None:
        """Keep the verdict."""
        self.verdicts.append(verdict)

    def environment(self, environment: Environment) -> None:
        """Keep the environment."""
        self.environments.append(environment)

    def checkpoints(self) -> list[Path]:
        """The checkpoints that still exist, newest first: what `train` takes to resume from."""
        newest_first = dict.fromkeys(path for kind, _, path in reversed(self.saved) if kind == "checkpoint")
        return [path for path in newest_first if path.exists()]


@dataclass(frozen=True)
class Outcome:
    """How a call of `train` ended.

    `handed_back` means that a shutdown was requested: a checkpoint of this step is written and another worker can
    resume. `test` is {"loss", "accuracy", "epoch"} if the spec asks for the test split.
    """

    status: Literal["completed", "cancelled", "diverged", "handed_back"]
    reason: str | None = None
    test: TestResult | None = None
