"""A run has several threads only while they pay, and the same ones again when it is resumed or repeated."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from models.cores import usable_cores
from tests.worker.training.tiny import figures, images, same_tensors, spec
from worker.training.build import build_batches, build_data, build_state
from worker.training.engine import train
from worker.training.neighbours import Neighbours
from worker.training.sink import MemorySink
from worker.training.thread_control import ThreadControl
from worker.training.threads import START, Place, ThreadHistory
from worker.training.trial import build_trial
from worker.training.tuning import choose_tuning

two_cores = pytest.mark.skipif(usable_cores() < 2, reason="one core runs one thread")

LARGE: dict[str, Any] = {
    "model": {"name": "cnn", "blocks": [{"convs": [{"channels": 48, "batch_norm": True}], "dropout": 0.1}]},
    "batch_size": 50,
    "augmentation": {"hflip": 0.5, "mixup_alpha": 0.4},
}
"""Four steps an epoch, whose gradients are sums that two threads add up in another order than one."""


class Load:
    """What is measured on a machine under a made-up load: speedup by (more, fewer); 0.1 for everything else."""

    def __init__(self, **speedups: float) -> None:
        self.speedups = {tuple(map(int, name[1:].split("_"))): value for name, value in speedups.items()}
        self.seconds = 1.0
        self.asked: list[tuple[int, int]] = []

    def __call__(self) -> "Load":
        return self

    def step_seconds(self) -> float:
        return self.seconds

    def speedup(self, more: int, fewer: int) -> float:
        self.asked.append((more, fewer))
        return self.speedups.get((more, fewer), 0.1)


class Clock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Callable[..., ThreadControl]]:
    """Makes thread controls of four cores with no neighbours but each other."""
    made: list[ThreadControl] = []

    def make(**options: Any) -> ThreadControl:
        control = ThreadControl(Neighbours(shared=[tmp_path]), **{"limit": 4, **options})
        control.neighbours._cores = 4
        made.append(control)
        return control

    yield make
    for control in made:
        control.neighbours.close()


@pytest.fixture(autouse=True)
def _four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.training.neighbours.machine_cores", lambda: 4)


def begin(control: ThreadControl, **options: Any) -> None:
    control.begin(options.pop("place", START), lambda: Load(), **{"most": 8, "steps_left": 100, **options})


@pytest.mark.parametrize(
    ("load", "threads"),
    [
        (Load(), 1),
        (Load(_2_1=1.24), 1),
        (Load(_2_1=1.26), 2),
        (Load(_2_1=1.9, _4_2=1.2), 2),
        (Load(_2_1=1.9, _4_2=1.5), 4),
        (Load(_2_1=1.0, _4_2=3.0), 1),
    ],
)
def test_threads_are_doubled_while_they_bring_a_quarter(
    alone: Callable[..., ThreadControl], load: Load, threads: int
) -> None:
    control = alone(speeds=load)
    with control:
        begin(control)
        assert control.threads == torch.get_num_threads() == threads


def test_no_more_than_the_work_keeps_busy_nor_than_are_allowed(alone: Callable[..., ThreadControl]) -> None:
    load = Load(_2_1=2.0, _3_2=1.5, _4_2=2.0)
    for limits, expected in (({"most": 1}, 1), ({"most": 3}, 3), ({"most": 8}, 4)):
        with alone(speeds=load) as control:
            begin(control, **limits)
            assert control.threads == expected
    with alone(speeds=load, limit=2) as control:
        begin(control)
        assert control.threads == 2


def test_a_run_that_is_over_in_a_moment_is_not_tried_out(alone: Callable[..., ThreadControl]) -> None:
    load = Load(_2_1=2.0)
    load.seconds = 0.009
    with alone(speeds=load) as control:
        begin(control)
        assert (control.threads, load.asked) == (1, [])


def test_who_comes_second_takes_one_core_and_the_first_gives_it_up(alone: Callable[..., ThreadControl]) -> None:
    load, clock = Load(_2_1=2.0, _4_2=2.0), Clock()
    with alone(speeds=load, clock=clock) as first:
        begin(first)
        assert first.threads == 4
        with alone(speeds=load, clock=clock) as second:
            begin(second)
            assert second.threads == 2
            first.begin_training(START, "steps")
            clock.now += 1.1
            first.after_step(Place(0, 1, 7))
            assert first.threads == 2
            assert first.history.changes == ((START, 4), (Place(0, 1, 7), 2))
        clock.now += 30
        first.after_step(Place(0, 1, 8))
        assert first.threads == 4


def steps(control: ThreadControl, clock: Clock, first: int, count: int, seconds: float) -> None:
    for step in range(first, first + count):
        clock.now += seconds
        control.after_step(Place(0, 1, step))


def test_a_run_whose_speed_has_fallen_goes_on_with_fewer_threads_and_with_more_again(
    alone: Callable[..., ThreadControl],
) -> None:
    load, clock, told = Load(_2_1=1.8), Clock(), []
    with alone(limit=2, speeds=load, clock=clock) as control:
        control.tell = lambda code, text, data: told.append((code, data["step"], data["before"], data["threads"]))
        begin(control)
        control.begin_training(START, "steps")
        steps(control, clock, 1, 300, 0.01)
        load.speedups.clear()  # now others want the cores
        steps(control, clock, 301, 200, 0.015)
        assert control.threads == 2, "two thirds of the speed is no reason"
        steps(control, clock, 501, 10, 0.5)
        assert control.threads == 1
        steps(control, clock, 511, 100, 0.05)
        load.speedups[2, 1] = 1.8
        steps(control, clock, 611, 2000, 0.02)
        assert control.threads == 2
    assert [(code, before, after) for code, _, before, after in told] == [
        ("threads-changed", 2, 1),
        ("threads-changed", 1, 2),
    ]
    assert 501 <= told[0][1] <= 510


def test_a_load_that_comes_in_the_first_second_is_noticed(alone: Callable[..., ThreadControl]) -> None:
    load, clock = Load(_2_1=1.8), Clock()
    load.seconds = 0.02
    with alone(limit=2, speeds=load, clock=clock) as control:
        begin(control)
        load.speedups.clear()
        control.begin_training(START, "steps")
        steps(control, clock, 1, 30, 0.1)
        assert control.threads == 1


def test_where_fewer_threads_are_no_faster_they_stay(alone: Callable[..., ThreadControl]) -> None:
    load, clock = Load(_2_1=1.3), Clock()
    with alone(limit=2, speeds=load, clock=clock) as control:
        begin(control)
        load.speedups[2, 1] = 1.15  # would not be taken, but is kept
        control.begin_training(START, "steps")
        steps(control, clock, 1, 300, 0.01)
        steps(control, clock, 301, 10, 0.5)
        assert control.threads == 2
        assert len(load.asked) == 2


def test_trials_take_a_twentieth_of_the_time_at_most(alone: Callable[..., ThreadControl]) -> None:
    clock = Clock()

    class Slow(Load):
        def speedup(self, more: int, fewer: int) -> float:
            clock.now += 2.0
            return super().speedup(more, fewer)

    load = Slow(_2_1=1.5)
    with alone(limit=2, speeds=load, clock=clock) as control:
        begin(control)
        control.begin_training(START, "steps")
        for round_ in range(100):
            steps(control, clock, 2 * round_ + 1, 1, 1.0 if round_ % 2 else 5.0)
        assert 1 < len(load.asked) <= 1 + (clock.now / 40)


class Costly(Load):
    """A load whose trials take time, on a clock that a test moves."""

    def __init__(self, clock: Clock, trial_seconds: float, **speedups: float) -> None:
        super().__init__(**speedups)
        self.clock, self.trial_seconds = clock, trial_seconds

    def speedup(self, more: int, fewer: int) -> float:
        self.clock.now += self.trial_seconds
        return super().speedup(more, fewer)


@contextmanager
def in_training(
    alone: Callable[..., ThreadControl], trial_seconds: float = 0.3, work: object = "steps"
) -> Iterator[tuple[ThreadControl, Costly, Clock]]:
    """A long run that may have two threads and has begun with one, as its load lets two gain nothing so far."""
    clock = Clock()
    load = Costly(clock, trial_seconds)
    with alone(limit=2, speeds=load, clock=clock) as control:
        begin(control, steps_left=10**6)
        control.begin_training(START, work)
        yield control, load, clock


@pytest.mark.parametrize("busy_seconds", [20.0, 300.0, 4 * 3600.0])
def test_a_run_that_began_under_load_uses_the_free_cores_though_its_speed_rose_by_a_third_only(
    alone: Callable[..., ThreadControl], busy_seconds: float
) -> None:
    """At the latest when as much time again has passed, and within ten minutes."""
    with in_training(alone) as (control, load, clock):
        assert control.threads == 1
        while clock.now < busy_seconds:
            steps(control, clock, 1, 1, 1.33)
        assert control.threads == 1
        load.speedups[2, 1] = 1.5  # now the cores are free
        while clock.now < busy_seconds + max(30.0, min(1.1 * busy_seconds, 610.0)):
            steps(control, clock, 2, 1, 1.0)
        assert control.threads == 2


@pytest.mark.parametrize("trial_seconds", [0.3, 20.0])
def test_trials_that_change_nothing_become_rarer_and_take_a_fiftieth_of_the_time_at_most(
    alone: Callable[..., ThreadControl], trial_seconds: float
) -> None:
    with in_training(alone, trial_seconds) as (control, load, clock):
        began, at = clock.now, []
        while clock.now < 8 * 3600.0:
            trials = len(load.asked)
            steps(control, clock, 1, 1, 1.0)
            if len(load.asked) > trials:
                at.append(clock.now)
                assert trial_seconds * len(at) <= (clock.now - began) / 50
        assert len(at) >= 3, "it does not give up"
        pauses = [round(later - earlier, 3) for earlier, later in pairwise(at)]
        assert pauses == sorted(pauses)
        assert control.threads == 1


def test_a_change_is_followed_by_trials_soon_again(alone: Callable[..., ThreadControl]) -> None:
    """A load that comes late is answered as one at the start."""
    with in_training(alone) as (control, load, clock):
        steps(control, clock, 1, 4000, 1.0)  # trials are ten minutes apart by now
        load.speedups[2, 1] = 1.8
        steps(control, clock, 4001, 650, 0.9)
        assert control.threads == 2
        load.speedups.clear()
        steps(control, clock, 4651, 10, 5.0)
        assert control.threads == 1
        load.speedups[2, 1] = 1.8
        steps(control, clock, 4661, 30, 0.9)
        assert control.threads == 2


def test_a_risen_speed_that_allows_no_more_threads_yet_is_followed_by_trials_soon(
    alone: Callable[..., ThreadControl],
) -> None:
    with in_training(alone) as (control, load, clock):
        steps(control, clock, 1, 2000, 2.0)  # trials are ten minutes apart by now
        steps(control, clock, 2001, 10, 1.1)
        load.speedups[2, 1] = 1.5
        steps(control, clock, 2011, 30, 1.0)
        assert control.threads == 2


def test_a_trial_without_a_sign_names_no_fallen_speed(alone: Callable[..., ThreadControl]) -> None:
    told: list[str] = []
    clock = Clock()
    load = Costly(clock, 0.3, _2_1=1.9)
    with alone(speeds=load, clock=clock) as control:
        control.tell = lambda code, text, data: told.append(text)
        begin(control, steps_left=10**6)
        assert control.threads == 2
        load.speedups.clear()
        control.begin_training(START, "steps")
        steps(control, clock, 1, 100, 1.0)
    assert [text.split(": ", 1)[1] for text in told] == ["the machine is busy"]


def test_a_run_resumed_with_one_thread_uses_the_cores_that_are_free_now(alone: Callable[..., ThreadControl]) -> None:
    clock = Clock()
    load = Costly(clock, 0.3, _2_1=1.5)
    with alone(limit=2, speeds=load, clock=clock) as control:
        begin(control, place=Place(0, 3, 2), history=ThreadHistory(((START, 1),)))
        assert control.threads == 1, "it continues with what it had"
        control.begin_training(Place(0, 3, 2), "steps")
        steps(control, clock, 3, 30, 1.0)
        assert control.threads == 2


def test_steps_of_another_size_are_tried_soon(alone: Callable[..., ThreadControl]) -> None:
    """Larger images may need two threads where smaller ones did not."""
    with in_training(alone, work=16) as (control, load, clock):
        steps(control, clock, 1, 4000, 1.0)
        control.end_training()
        load.speedups[2, 1] = 1.8
        control.begin_training(START, 32)
        steps(control, clock, 4001, 10, 4.0)
        assert control.threads == 2


def test_steps_of_another_kind_are_not_compared(alone: Callable[..., ThreadControl]) -> None:
    load, clock = Load(_2_1=1.5), Clock()
    with alone(limit=2, speeds=load, clock=clock) as control:
        begin(control)
        for size, seconds in ((16, 0.1), (32, 0.5), (64, 2.0)):
            control.begin_training(START, size)
            steps(control, clock, 1, 30, seconds)
            control.end_training()
            clock.now += 1000.0  # measuring
        assert len(load.asked) == 1


def test_a_resumed_run_goes_on_with_what_it_had_unless_that_does_not_pay_now(
    alone: Callable[..., ThreadControl],
) -> None:
    place, history = Place(0, 3, 2), ThreadHistory(((START, 2),))
    for load, expected in ((Load(_2_1=1.15), 2), (Load(_2_1=0.5), 1), (Load(_2_1=2.0, _4_2=2.0), 2)):
        with alone(speeds=load) as control:
            begin(control, place=place, history=history)
            assert control.threads == expected
            assert control.history.at(Place(0, 2, 0)) == 2
            assert control.history.at(place) == expected


def test_a_repeated_run_decides_nothing(alone: Callable[..., ThreadControl]) -> None:
    changes = ThreadHistory(((START, 2), (Place(0, 1, 3), 1), (Place(0, 2, 0), 4), (Place(1, 1, 0), 1)))
    load, clock = Load(), Clock()
    with alone(speeds=load, replay=changes, clock=clock) as control:
        begin(control)
        control.begin_training(START, "steps")
        seen = [control.threads]
        for place in (Place(0, 1, 2), Place(0, 1, 3), Place(0, 1, 4), Place(0, 2, 1), Place(1, 1, 1)):
            clock.now += 10
            control.after_step(place)
            seen.append(control.threads)
        assert seen == [2, 2, 1, 1, 4, 1]
        assert load.asked == []


def test_a_repeated_run_that_may_not_have_as_many_threads_says_so(alone: Callable[..., ThreadControl]) -> None:
    told: list[str] = []
    with alone(limit=2, replay=ThreadHistory(((START, 4), (Place(0, 2, 0), 3)))) as control:
        control.tell = lambda code, text, data: told.append(code)
        begin(control)
        control.begin_training(START, "steps")
        for place in (Place(0, 1, 1), Place(0, 2, 1)):
            control.after_step(place)
        assert control.threads == 2
    assert told == ["threads-not-replayed"]


def test_the_processs_number_of_threads_is_put_back(alone: Callable[..., ThreadControl]) -> None:
    torch.set_num_threads(3)
    with alone(speeds=Load(_2_1=2.0)) as control:
        assert torch.get_num_threads() == 1
        begin(control)
        assert torch.get_num_threads() == 2
        with control.one_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
    assert torch.get_num_threads() == 3


def test_a_history_survives_json_and_older_records_are_read() -> None:
    history = ThreadHistory().changed(START, 2).changed(Place(0, 2, 5), 1).changed(Place(0, 3, 0), 1)
    assert history.changes == ((START, 2), (Place(0, 2, 5), 1))
    assert ThreadHistory.from_json(history.as_json()) == history
    environment = {"device_type": "cpu", "threads": 1, "thread_changes": history.as_json()}
    assert ThreadHistory.of_environment(environment) == history
    assert ThreadHistory.of_environment({"device_type": "cpu", "threads": 2}) == ThreadHistory(((START, 2),))
    assert ThreadHistory.of_environment({"device_type": "cuda", "threads": 2}) is None
    assert ThreadHistory.of_environment(None) is None
    assert history.changed(Place(0, 2, 0), 4).changes == ((START, 2), (Place(0, 2, 0), 4))


def test_a_trial_leaves_no_trace() -> None:
    body = spec(**{**LARGE, "fine_tuning": {"freeze_backbone_epochs": 1}})
    tuning = choose_tuning(body, images(), "cpu")
    data = build_data(body, images(), tuning)
    state = build_state(body, data, build_batches(body, data, tuning), tuning, None)
    before = {name: tensor.clone() for name, tensor in state.network.state_dict().items()}
    random = torch.get_rng_state()
    trial = build_trial(body, data, state, 512)
    assert trial.step_seconds() > 0
    assert trial.speedup(2, 1) > 0
    assert same_tensors(before, dict(state.network.state_dict()))
    assert torch.equal(random, torch.get_rng_state())
    assert all(parameter.grad is None for parameter in state.network.parameters())
    assert torch.get_num_threads() == 1


class Run:
    """One attempt at LARGE with a control of two cores; another process comes and goes at steps that a test names."""

    def __init__(self, folder: Path, replay: ThreadHistory | None = None) -> None:
        self.folder = folder
        self.meeting = folder / "meeting"
        self.meeting.mkdir(parents=True)
        self.sink = MemorySink()
        self.clock = Clock()
        self.replay = replay
        self.looks = 0

    def train(self, *, comes: int = 0, goes: int = 0, ends: int = 0, checkpoints: list[Path] = []) -> "Run":  # noqa: B006
        other = Neighbours(shared=[self.meeting])
        here = Neighbours(shared=[self.meeting])
        here._cores = 2

        def stop() -> Any:
            self.looks += 1
            self.clock.now += 60.0  # each step and each measured batch: the control looks up at every chance
            if self.looks == comes:
                other.train_with(3)
            if self.looks == goes:
                other.close()
            return "shutdown" if self.looks == ends else None

        if comes == -1:  # before the start
            other.train_with(3)
        control = ThreadControl(here, limit=2, replay=self.replay, speeds=Load(_2_1=2.0), clock=self.clock)
        train(
            spec(**LARGE, epochs=4),
            images(),
            self.sink,
            self.folder,
            device="cpu",
            checkpoints=checkpoints,
            should_stop=stop,
            thread_control=control,
        )
        other.close()
        return self

    @property
    def history(self) -> ThreadHistory:
        return ThreadHistory.from_json(self.sink.environments[-1]["thread_changes"])

    def weights(self) -> dict[str, torch.Tensor]:
        return load_file(self.folder / "weights-last.safetensors")


@pytest.fixture(scope="module")
def switched(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that goes from two threads to one inside its first epoch, and to two again in its third."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("worker.training.neighbours.machine_cores", lambda: 4)
        return Run(tmp_path_factory.mktemp("switched")).train(comes=2, goes=13)


@two_cores
def test_changes_of_threads_are_recorded_and_told(switched: Run) -> None:
    changes = [(place.epoch, threads) for place, threads in switched.history.changes]
    assert changes == [(1, 2), (1, 1), (3, 2)]
    notices = [(code, data["before"], data["threads"]) for code, _, data in switched.sink.notices]
    assert notices == [("threads-changed", 2, 1), ("threads-changed", 1, 2)]
    assert "1 thread instead of 2" in switched.sink.notices[0][1]
    assert switched.sink.environments[-1]["threads"] == 2


@two_cores
def test_the_number_of_threads_decides_the_last_bits(switched: Run, tmp_path: Path) -> None:
    """Or the tests below could not fail."""
    steady = Run(tmp_path).train()
    assert [threads for _, threads in steady.history.changes] == [2]
    assert figures(steady.sink.epochs) != figures(switched.sink.epochs)


@two_cores
def test_a_repeated_run_changes_its_threads_at_the_same_steps(switched: Run, tmp_path: Path) -> None:
    """Here no neighbour comes: what is decided is what the record says."""
    repeated = Run(tmp_path, replay=switched.history).train()
    assert figures(repeated.sink.epochs) == figures(switched.sink.epochs)
    assert same_tensors(repeated.weights(), switched.weights())
    assert repeated.history == switched.history


@two_cores
@pytest.mark.parametrize("ends", [1, 4, 6, 15])
def test_a_repeated_run_may_be_interrupted_too(switched: Run, tmp_path: Path, ends: int) -> None:
    first = Run(tmp_path / "first", replay=switched.history).train(ends=ends)
    second = Run(tmp_path / "second", replay=switched.history).train(checkpoints=first.sink.checkpoints())
    assert figures(first.sink.epochs + second.sink.epochs) == figures(switched.sink.epochs)
    assert same_tensors(second.weights(), switched.weights())


@two_cores
@pytest.mark.parametrize(("ends", "places", "kept"), [(2, 0, 0), (7, 1, 1)], ids=["inside", "at the start"])
def test_a_run_that_is_resumed_with_other_threads_can_be_repeated_whole(
    tmp_path: Path, ends: int, places: int, kept: int
) -> None:
    """The record of the last attempt holds the threads of all of them. It may begin at an epoch's start, or inside."""
    first = Run(tmp_path / "first").train(ends=ends)
    checkpoints = first.sink.checkpoints()[places:]
    first.sink.epochs = first.sink.epochs[:kept]
    second = Run(tmp_path / "second").train(checkpoints=checkpoints, comes=-1)
    assert [threads for _, threads in second.history.changes] == [2, 1]
    repeated = Run(tmp_path / "repeated", replay=second.history).train()
    assert figures(repeated.sink.epochs) == figures(first.sink.epochs + second.sink.epochs)
    assert same_tensors(repeated.weights(), second.weights())


@two_cores
def test_batches_are_the_same_however_many_threads_prepare_them() -> None:
    everything = spec(
        batch_size=64,
        augmentation={
            "hflip": 0.5,
            "rotation_degrees": 15,
            "shift_pixels": 2,
            "crop_padding": 2,
            "random_erase": 0.5,
            "cutout_pixels": 4,
            "color_jitter": {"brightness": 0.3, "contrast": 0.3, "saturation": 0.3, "hue": 0.1},
            "mixup_alpha": 0.4,
        },
        progressive_resizing=[{"from_epoch": 1, "input_size": 24}],
    )
    tuning = choose_tuning(everything, images(), "cpu")
    batches = build_batches(everything, build_data(everything, images(), tuning), tuning)
    made = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        made.append([batch.images for batch in batches.iterate(1, 24)])
    assert all(torch.equal(one, two) for one, two in zip(*made, strict=True))
