"""A run that is interrupted anywhere and resumed is the run that was never interrupted, to the bit."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from models.errors import CorruptFile
from tests.worker.training.tiny import NETWORK, figures, images, run, same_tensors, spec
from worker.training.checkpoints import VERSION, load_checkpoint
from worker.training.engine import train
from worker.training.sink import MemorySink, Outcome

PLAIN: dict[str, Any] = {}
EVERYTHING: dict[str, Any] = {
    "augmentation": {
        "hflip": 0.5,
        "rotation_degrees": 15,
        "shift_pixels": 2,
        "random_erase": 0.5,
        "color_jitter": {"brightness": 0.3, "hue": 0.1},
        "mixup_alpha": 0.4,
    },
    "optimizer": {"name": "adamw", "lr": 0.01},
    "lr_scheduler": {"name": "plateau", "patience": 0, "warmup_epochs": 0.5},
    "accumulate_batches": 2,
    "batch_size": 16,
    "clip_grad_norm": 1.0,
    "ema_decay": 0.9,
    "early_stopping": {"monitor": "val_loss", "patience": 50},
    "fine_tuning": {"freeze_backbone_epochs": 1},
}


class Interruption:
    """Asks to shut down after so many looks; the engine looks once a step and once a measured batch."""

    def __init__(self, after: int) -> None:
        self.left = after

    def __call__(self) -> str | None:
        self.left -= 1
        return "shutdown" if self.left == 0 else None


def interrupted(folder: Path, every: int, changes: dict[str, Any]) -> tuple[list[MemorySink], Outcome, Path]:
    """Train in as many attempts as it takes, each shut down after `every` looks. Returns the last attempt's folder."""
    sinks: list[MemorySink] = []
    checkpoints: list[Path] = []
    for attempt in range(1, 200):
        sink, place = MemorySink(), folder / f"attempt-{attempt}"
        torch.manual_seed(attempt)  # another process would have another state
        stop: Any = Interruption(every)
        outcome = train(spec(**changes), images(), sink, place, device="cpu", checkpoints=checkpoints, should_stop=stop)
        sinks.append(sink)
        checkpoints = sink.checkpoints() + checkpoints
        if outcome.status != "handed_back":
            return sinks, outcome, place
    raise AssertionError("the run does not end")


@pytest.mark.parametrize("changes", [PLAIN, EVERYTHING], ids=["plain", "everything"])
@pytest.mark.parametrize("every", [2, 3, 7])
def test_a_run_resumed_after_any_step_is_identical_to_the_bit(
    tmp_path: Path, every: int, changes: dict[str, Any]
) -> None:
    """Every 2 looks: at each second step, and while measuring; 3 and 7 fall on other places in each epoch."""
    _, whole = run(tmp_path / "whole", **changes)
    sinks, outcome, last = interrupted(tmp_path / "parts", every, changes)
    assert outcome.status == "completed"
    assert len(sinks) > 1
    epochs = [metrics for sink in sinks for metrics in sink.epochs]
    assert figures(epochs) == figures(whole.epochs)
    for name in ("weights-last", "weights-best", "kernels"):
        ours = next(path for sink in reversed(sinks) for _, _, path in reversed(sink.saved) if path.stem == name)
        assert same_tensors(load_file(ours), load_file(tmp_path / "whole" / f"{name}.safetensors")), name
    assert last.is_dir()


def test_a_run_killed_between_checkpoints_goes_on_from_the_last_one(tmp_path: Path) -> None:
    """The first attempt's epochs beyond the checkpoint are trained again, to the same figures and files."""
    _, whole = run(tmp_path / "whole", epochs=4)
    first = MemorySink()
    train(spec(epochs=4), images(), first, tmp_path / "first", device="cpu", should_stop=_at(first, epochs=3))
    kept = tmp_path / "first" / "checkpoint-00003-0000000.pt"
    assert kept.is_file()
    second = MemorySink()
    train(spec(epochs=4), images(), second, tmp_path / "second", device="cpu", checkpoints=[kept])
    assert [metrics.epoch for metrics in second.epochs] == [3, 4]
    assert figures(first.epochs[:2] + second.epochs) == figures(whole.epochs)
    for name in ("weights-last", "weights-best", "kernels"):
        file = f"{name}.safetensors"
        assert same_tensors(load_file(tmp_path / "second" / file), load_file(tmp_path / "whole" / file))


def _at(sink: MemorySink, epochs: int) -> Any:
    return lambda: "cancel" if len(sink.epochs) >= epochs else None


def test_best_weights_that_are_lost_are_chosen_anew(tmp_path: Path) -> None:
    first = MemorySink()
    train(spec(), images(), first, tmp_path / "first", device="cpu", should_stop=_shut_down(first))
    (tmp_path / "first" / "weights-best.safetensors").unlink()
    second = MemorySink()
    train(spec(), images(), second, tmp_path / "second", device="cpu", checkpoints=first.checkpoints())
    assert ("weights-best", 0, tmp_path / "second" / "weights-best.safetensors") in second.saved


@pytest.mark.parametrize("damage", ["gone", "empty", "cut", "other"])
def test_a_run_that_lost_its_best_weights_after_the_last_epoch_ends_without_a_test(tmp_path: Path, damage: str) -> None:
    body = {"dataset": {"evaluate_test": True}}
    first = MemorySink()
    ended = lambda: "shutdown" if len(first.epochs) == spec(**body).epochs else None  # noqa: E731
    outcome = train(spec(**body), images(), first, tmp_path / "first", device="cpu", should_stop=ended)
    assert outcome.status == "handed_back"
    path = tmp_path / "first" / "weights-best.safetensors"
    content = path.read_bytes()
    path.unlink()
    if damage != "gone":
        path.write_bytes({"empty": b"", "cut": content[:20], "other": b"PK" + content[2:]}[damage])
    second = MemorySink()
    outcome = train(spec(**body), images(), second, tmp_path / "second", device="cpu", checkpoints=first.checkpoints())
    assert (outcome.status, outcome.test) == ("completed", None)
    assert "best-weights-lost" in [code for code, _, _ in second.notices]


def test_the_best_weights_come_along_to_the_next_attempt(tmp_path: Path) -> None:
    """Only the first epoch can be the best here: the rate is next to nothing, and nothing later is better."""
    body = {
        "optimizer": {"name": "sgd", "lr": 1e-12, "momentum": 0},
        "model": {**NETWORK, "blocks": NETWORK["blocks"][1:]},
    }
    first = MemorySink()
    train(spec(**body), images(), first, tmp_path / "first", device="cpu", should_stop=_shut_down(first))
    second = MemorySink()
    train(spec(**body), images(), second, tmp_path / "second", device="cpu", checkpoints=first.checkpoints())
    assert (tmp_path / "second" / "weights-best.safetensors").read_bytes() == (
        tmp_path / "first" / "weights-best.safetensors"
    ).read_bytes()
    assert ("weights-best", 0, tmp_path / "second" / "weights-best.safetensors") in second.saved


def _shut_down(sink: MemorySink) -> Any:
    return lambda: "shutdown" if len(sink.epochs) == 1 else None


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "gone"])
def test_a_damaged_checkpoint_is_passed_over_and_named(tmp_path: Path, damage: str) -> None:
    _, first = run(tmp_path / "first")
    newest, before = first.checkpoints()
    content = bytearray(newest.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 0xFF
        content[-100] ^= 0xFF
    newest.write_bytes(b"" if damage == "empty" else content[: len(content) // 2] if damage == "cut" else content)
    if damage == "gone":
        newest.unlink()
    second = MemorySink()
    outcome = train(spec(), images(), second, tmp_path / "second", device="cpu", checkpoints=[newest, before])
    assert outcome.status == "completed"
    notices = {code: data for code, _, data in second.notices}
    assert notices["checkpoint-unusable"]["file"] == newest.name
    assert notices["resumed"]["file"] == before.name
    assert figures(second.epochs) == figures(first.epochs[-1:])


def test_a_checkpoint_of_another_spec_is_refused(tmp_path: Path) -> None:
    _, first = run(tmp_path / "first")
    second = MemorySink()
    train(spec(seed=1), images(), second, tmp_path / "second", device="cpu", checkpoints=first.checkpoints())
    assert [code for code, _, _ in second.notices] == ["checkpoint-unusable", "checkpoint-unusable"]
    assert [metrics.epoch for metrics in second.epochs] == [1, 2, 3]


def test_nothing_in_a_checkpoint_has_to_be_unpickled(tmp_path: Path) -> None:
    run(tmp_path, **EVERYTHING)
    for path in tmp_path.glob("checkpoint-*.pt"):
        assert torch.load(path, weights_only=True)["version"] == VERSION
    evil = tmp_path / "evil.pt"
    torch.save({"version": VERSION, "run": {}, "state": Path}, evil)
    with pytest.raises(CorruptFile):
        load_checkpoint(evil, {})


def test_two_checkpoints_are_kept(tmp_path: Path) -> None:
    run(tmp_path, epochs=5)
    assert sorted(path.name for path in tmp_path.glob("checkpoint-*")) == [
        "checkpoint-00005-0000000.pt",
        "checkpoint-00006-0000000.pt",
    ]
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


SIDE_BY_SIDE = """
import json, sys
from pathlib import Path
from tests.worker.training.tiny import figures, run
from tests.worker.training.test_resume import EVERYTHING
import torch
torch.set_num_threads(2)
print("ready", flush=True)
_, sink = run(Path(sys.argv[1]), epochs=4, **EVERYTHING)
print(json.dumps(figures(sink.epochs)))
"""


def test_two_runs_side_by_side_are_identical_to_the_bit(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SIDE_BY_SIDE, str(tmp_path / "one")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "ready\n"
        _, sink = run(tmp_path / "two", epochs=4, **EVERYTHING)
        history = json.loads(other.communicate()[0])
    assert other.returncode == 0
    assert history == json.loads(json.dumps(figures(sink.epochs)))
    assert len(history) == 4
    one, two = (load_file(tmp_path / name / "weights-last.safetensors") for name in ("one", "two"))
    assert same_tensors(one, two)
