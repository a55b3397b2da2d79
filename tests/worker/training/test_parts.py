"""The smaller parts: objective, tally, averaging, stopping, tuning, files, environment."""

import ctypes
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.curves.metrics import EpochMetrics
from models.errors import SpecError
from models.networks.predict import predict
from models.spec.experiment import Precision
from models.spec.parse import parse_spec
from models.spec.training import EarlyStoppingSpec
from tests.worker.training.tiny import images, spec
from worker.training.averaging import AveragedWeights
from worker.training.batches.loader import Batch, Split
from worker.training.crew import Crew
from worker.training.environment import describe_environment, git_revision
from worker.training.objective import Objective
from worker.training.precision import Arithmetic, resolve_precision
from worker.training.stopping import EarlyStopping, Judgement
from worker.training.tally import FLUSH_AFTER, Tally
from worker.training.threads import SPIN_COUNT
from worker.training.tuning import choose_tuning

CPU = torch.device("cpu")


def split(labels: list[int]) -> Split:
    count = len(labels)
    return Split(torch.zeros(count, 1, 1, 1, dtype=torch.uint8), torch.tensor(labels), torch.arange(count))


def objective(**changes: Any) -> Objective:
    return Objective(spec(**changes), split([0, 0, 0, 1]), 3, CPU)


def batch(num: int = 6, other: Tensor | None = None, share: float = 1.0) -> tuple[Tensor, Batch]:
    generator = torch.Generator().manual_seed(1)
    outputs = torch.randn(num, 3, generator=generator)
    labels = torch.randint(0, 3, (num,), generator=generator)
    return outputs, Batch(torch.zeros(num, 1, 1, 1), labels, other, share)


def test_the_objective_is_cross_entropy_with_what_is_asked_for() -> None:
    outputs, plain = batch()
    assert torch.equal(objective()(outputs, plain), F.cross_entropy(outputs, plain.labels))
    smooth = objective(label_smoothing=0.2)(outputs, plain)
    assert torch.equal(smooth, F.cross_entropy(outputs, plain.labels, label_smoothing=0.2))


def test_balanced_weights_are_inverse_frequencies_and_absent_classes_weigh_nothing() -> None:
    weights = objective(class_weights="balanced").weights
    assert weights is not None
    assert weights.tolist() == pytest.approx([4 / 9, 4 / 3, 0.0])


def test_given_weights_are_taken_and_counted() -> None:
    weights = objective(class_weights=[1.0, 2.0, 3.0]).weights
    assert weights is not None
    assert weights.tolist() == [1.0, 2.0, 3.0]
    with pytest.raises(SpecError, match="2 weights for 3 classes"):
        objective(class_weights=[1.0, 2.0])


def test_mixed_labels_share_the_loss() -> None:
    other = torch.tensor([2, 1, 0, 2, 1, 0])
    outputs, mixed = batch(other=other, share=0.3)
    expected = 0.3 * F.cross_entropy(outputs, mixed.labels) + 0.7 * F.cross_entropy(outputs, other)
    assert objective()(outputs, mixed) == pytest.approx(expected.item())
    tally = Tally(CPU)
    tally.add(outputs, mixed)
    loss, accuracy, _ = tally.means()
    assert loss == pytest.approx(expected.item())
    assert accuracy == pytest.approx((outputs.argmax(1) == other).float().mean().item())


def test_the_mirror_average_is_symmetric() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    pixels = torch.randn(2, 3, 2, 2)
    mirrored = predict(network, pixels.flip(3), "mirror")
    assert torch.allclose(predict(network, pixels, "mirror"), mirrored, atol=1e-6)
    assert not torch.allclose(predict(network, pixels, "none"), mirrored)


@pytest.mark.parametrize("num", [1, FLUSH_AFTER - 1, FLUSH_AFTER, 3 * FLUSH_AFTER + 5])
def test_a_tally_is_a_mean_per_image_and_survives_a_checkpoint_anywhere(num: int) -> None:
    generator = torch.Generator().manual_seed(2)
    sizes = [1 + step % 4 for step in range(num)]
    outputs = [torch.randn(size, 3, generator=generator) for size in sizes]
    labels = [torch.randint(0, 3, (size,), generator=generator) for size in sizes]
    whole, first, second = Tally(CPU), Tally(CPU), Tally(CPU)
    for step in range(num):
        for tally in (whole, first if step < num // 2 else second):
            if tally is second and step == num // 2:
                second.load_state_dict(first.state_dict())
            tally.add(outputs[step], Batch(torch.zeros(sizes[step]), labels[step]))
            tally.add_step(torch.tensor(float(step)))
    loss, accuracy, norm = whole.means()
    everything, every_label = torch.cat(outputs), torch.cat(labels)
    assert loss == pytest.approx(F.cross_entropy(everything, every_label).item(), abs=1e-6)
    assert accuracy == pytest.approx((everything.argmax(1) == every_label).float().mean().item())
    assert norm == pytest.approx((num - 1) / 2)
    assert second.means() == (loss, accuracy, norm)


def test_averaged_weights_follow_and_are_put_back() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    averaged = AveragedWeights(network, 0.5)
    expected = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    for step in range(1, 20):
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(1.0)
        averaged.update()
        decay = min(0.5, (1 + step) / (10 + step))
        for name, tensor in network.state_dict().items():
            if tensor.is_floating_point():
                expected[name] = decay * expected[name] + (1 - decay) * tensor
    own = network[0].weight.clone()
    with averaged.in_place():
        for name, tensor in network.state_dict().items():
            if tensor.is_floating_point():
                assert torch.allclose(tensor, expected[name], atol=1e-5)
    assert torch.equal(network[0].weight, own)


def epoch(number: int, loss: float, accuracy: float) -> EpochMetrics:
    return EpochMetrics(number, loss, accuracy, loss, accuracy, 0.1, 1.0, 1.0, 1.0, 1.0)


def test_the_best_epoch_is_the_first_of_the_most_accurate() -> None:
    judgement = Judgement(EarlyStopping(None))
    figures = [(1.0, 0.5), (0.9, 0.5), (0.95, 0.5), (2.0, 0.6), (math.nan, math.nan), (2.1, 0.6)]
    assert [judgement.take(epoch(n, *values)) for n, values in enumerate(figures, 1)] == [
        True,
        False,
        False,
        True,
        False,
        False,
    ]
    assert judgement.best.epoch == 4


@pytest.mark.parametrize(
    ("monitor", "values", "stops_at"),
    [
        ("val_loss", [1.0, 0.9, 0.95, 0.91, 0.5], 4),
        ("val_loss", [1.0, 0.9, 0.95, 0.8, 0.85, 0.82], 6),
        ("val_accuracy", [0.1, 0.3, 0.2, 0.3, 0.9], 4),
        ("train_loss", [1.0, 0.9, 0.8, 0.7], None),
        ("val_loss", [1.0, math.nan, math.nan], 3),
    ],
)
def test_early_stopping_waits_out_its_patience(monitor: str, values: list[float], stops_at: int | None) -> None:
    stopping = EarlyStopping(EarlyStoppingSpec.model_validate_json(f'{{"monitor": "{monitor}", "patience": 2}}'))
    stopped = [number for number, value in enumerate(values, 1) if stopping.take(epoch(number, value, value))]
    assert (stopped[0] if stopped else None) == stops_at


def test_small_gains_do_not_count_below_min_delta() -> None:
    stopping = EarlyStopping(EarlyStoppingSpec(patience=2, min_delta=0.1))
    assert [stopping.take(epoch(n, 1.0 - 0.04 * n, 0.1)) for n in range(1, 4)] == [False, False, True]


@pytest.mark.parametrize(("batch_size", "threads"), [(1, 1), (40, 2), (128, 7)])
def test_threads_grow_with_the_work_of_a_step(batch_size: int, threads: int) -> None:
    small = spec(model={"name": "cnn", "blocks": [{"convs": [{"channels": 64}]}]}, batch_size=batch_size)
    assert choose_tuning(small, images(), "cpu").most_threads == threads


KEEPING = """
import os
from pathlib import Path
import torch
from tests.worker.training.tiny import images, spec
from worker.training.tuning import choose_tuning

def resident_mb():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

with choose_tuning(spec(), images(), "cpu").applied():
    before = resident_mb()
    torch.ones(50_000_000).sum()
    print(resident_mb() - before)
print(resident_mb() - before)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="this C library keeps memory its own way")
def test_memory_is_kept_while_training_and_given_back_after() -> None:
    # in a process of its own: what earlier tests have freed would be taken again and nothing would grow
    project = Path(__file__).parents[3]
    result = subprocess.run([sys.executable, "-c", KEEPING], capture_output=True, text=True, check=True, cwd=project)
    kept, after = map(float, result.stdout.split())
    assert kept > 150
    assert after < 50


def test_precision_is_what_the_device_can_do() -> None:
    assert resolve_precision(Precision.AUTO, CPU) == Precision.FP32
    assert resolve_precision(Precision.BF16, CPU) == Precision.BF16
    with pytest.raises(SpecError, match="CUDA"):
        resolve_precision(Precision.FP16, CPU)


def test_bf16_computes_in_bf16() -> None:
    arithmetic = Arithmetic(Precision.BF16, CPU)
    with arithmetic.autocast():
        assert nn.Linear(2, 2)(torch.zeros(1, 2)).dtype == torch.bfloat16


def test_the_environment_says_what_a_run_is_computed_with() -> None:
    tuning = choose_tuning(spec(), images(), "cpu")
    with Crew() as crew:
        found = describe_environment(tuning, crew, "abc", "fp32")
    assert (found["threads"], found["thread_changes"]) == (1, [])
    assert found["device_type"] == "cpu"
    assert found["dataset_fingerprint"] == "abc"
    assert found["tuning"]["device"] == "cpu"
    assert found["versions"]["torch"] == torch.__version__


def test_the_revision_is_the_one_that_is_checked_out(tmp_path: Path) -> None:
    assert git_revision(tmp_path) is None
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    assert git_revision(tmp_path) is None
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", "-C", str(tmp_path), *identity, "commit", "-q", "--allow-empty", "-m", "one"], check=True)
    head = subprocess.run(["git", "-C", str(tmp_path), "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    (tmp_path / "below").mkdir()
    assert git_revision(tmp_path / "below") == head.stdout.strip()
    subprocess.run(["git", "-C", str(tmp_path), "pack-refs", "--all"], check=True)
    assert git_revision(tmp_path) == head.stdout.strip()


def test_spinning_is_limited_without_importing_torch() -> None:
    code = (
        "import os, sys; from worker.training.threads import limit_spinning; limit_spinning();"
        "print(os.environ['GOMP_SPINCOUNT'], 'torch' in sys.modules)"
    )
    clean = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"}
    done = subprocess.run([sys.executable, "-c", code], env=clean, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [SPIN_COUNT, "False"]


def test_every_preset_gets_a_tuning() -> None:
    for name in ("baseline", "three_blocks_batch_norm", "fast_resnet", "squeezenet1_1"):
        assert choose_tuning(parse_spec({"model": name}), images(), "cpu").most_threads >= 1
