"""Runs are scored as one by the mean of their answers or weights, and weights on corrupted images."""

import base64
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from models.errors import CorruptFile
from models.evaluation.outputs import Outputs, read_outputs
from models.evaluation.probabilities import softmax
from models.files import sha256_of
from models.measurements import CombinedQuestion, CombinedResult, StoredFile
from models.settings import Settings
from models.spec.study import Combine
from tests.worker.training.tiny import NETWORK, PLAIN, images, run, spec
from worker import combining, robustness
from worker.combining import combine_runs, mean_of_weights, refresh_batch_norm, score_ensemble
from worker.corruptions import CIFAR_10_C
from worker.explain import load_network
from worker.robustness import measure_robustness
from worker.training.build import build_data
from worker.training.tuning import choose_tuning

PLAIN_RUNS, NORMED = ("1", "2"), "3"


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A lab with three runs: two seeds of a plain network, and one with batch normalisation."""
    settings = Settings(data_dir=tmp_path_factory.mktemp("combined"), device="cpu")
    for name, network, seed in (("1", PLAIN, 0), ("2", PLAIN, 1), ("3", NETWORK, 0)):
        folder = settings.experiments_dir / name / "attempt-1"
        folder.mkdir(parents=True)
        run(folder, model=network, seed=seed)
    return settings


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """The dataset is the tiny one."""
    for module in (combining, robustness):
        monkeypatch.setattr(module, "open_local", lambda *_: images())


def stored(settings: Settings, name: str, file: str) -> StoredFile:
    path = f"{name}/attempt-1/{file}"
    return {"path": path, "sha256": sha256_of(settings.experiments_dir / path)}


def outputs(settings: Settings, name: str) -> Outputs:
    return read_outputs(settings.experiments_dir / name / "attempt-1" / "outputs-validation.safetensors")


def combine(settings: Settings, how: Combine, files: list[StoredFile], network: object = PLAIN) -> CombinedResult:
    question: CombinedQuestion = {"study": 1, "combine": how.value, "files": files}
    return combine_runs(spec(model=network).as_json(), question, settings)


def right(result: CombinedResult) -> NDArray[np.bool_]:
    bits = np.unpackbits(np.frombuffer(base64.b64decode(result["right"]), np.uint8))
    return bits[: result["num_images"]].astype(bool)


def test_an_ensemble_answers_by_the_mean_of_the_probabilities(settings: Settings) -> None:
    files = [stored(settings, name, "outputs-validation.safetensors") for name in PLAIN_RUNS]
    result = combine(settings, Combine.ENSEMBLE, files)
    one, other = (outputs(settings, name) for name in PLAIN_RUNS)
    expected = (softmax(one.logits) + softmax(other.logits)).argmax(axis=1) == one.labels
    assert np.array_equal(right(result), expected)
    assert result["accuracy"] == pytest.approx(expected.mean())
    alone = combine(settings, Combine.ENSEMBLE, [files[0], files[0]])
    assert np.array_equal(right(alone), one.logits.argmax(axis=1) == one.labels)


def test_answers_on_other_images_are_not_averaged(settings: Settings, tmp_path: Path) -> None:
    one = outputs(settings, "1")
    other = Outputs(one.about, one.logits[::2], one.labels[::2], one.positions[::2])
    for name, content in (("one", one), ("other", other)):
        (tmp_path / name).write_bytes(content.to_bytes())
    with pytest.raises(CorruptFile, match="different images"):
        score_ensemble([tmp_path / "one", tmp_path / "other"])


def test_a_file_that_was_changed_since_is_refused(settings: Settings) -> None:
    file = {**stored(settings, "1", "weights-best.safetensors"), "sha256": "0" * 64}
    with pytest.raises(CorruptFile):
        combine(settings, Combine.WEIGHTS, [file, file])  # type: ignore[list-item]


def test_the_mean_of_the_same_weights_answers_as_they_do(settings: Settings) -> None:
    file = stored(settings, "1", "weights-best.safetensors")
    result = combine(settings, Combine.WEIGHTS, [file, file, file])
    found = outputs(settings, "1")
    assert np.array_equal(right(result), found.logits.argmax(axis=1) == found.labels)
    assert result["batch_norm_images"] == 0


def test_weights_are_averaged_one_by_one(settings: Settings) -> None:
    paths = [settings.experiments_dir / name / "attempt-1" / "weights-best.safetensors" for name in PLAIN_RUNS]
    network, _, _ = load_network(paths[0], sha256_of(paths[0]), settings.cache_dir)
    mean = mean_of_weights(paths, network)
    one, other = (load_file(path) for path in paths)
    for name, tensor in mean.items():
        torch.testing.assert_close(tensor, (one[name] + other[name]) / 2)
    of_another = settings.experiments_dir / NORMED / "attempt-1" / "weights-best.safetensors"
    with pytest.raises(CorruptFile, match="another network"):
        mean_of_weights([paths[0], of_another], network)


def test_batch_normalisation_gets_the_statistics_of_the_training_images(settings: Settings) -> None:
    path = settings.experiments_dir / NORMED / "attempt-1" / "weights-best.safetensors"
    network, _, _ = load_network(path, sha256_of(path), settings.cache_dir)
    wanted = spec()
    tuning = choose_tuning(wanted, images(), "cpu", cuda_graphs=False)
    data = build_data(wanted, images(), tuning)
    layer = next(module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d))
    seen: list[torch.Tensor] = []
    layer.register_forward_pre_hook(lambda _, given: seen.append(given[0].detach()))
    assert refresh_batch_norm(network, data, tuning) == len(data.train)
    assert layer.running_mean is not None
    torch.testing.assert_close(layer.running_mean, torch.cat(seen).mean(dim=(0, 2, 3)))
    assert not network.training


def test_the_last_epochs_of_a_run_are_averaged_with_new_statistics(settings: Settings) -> None:
    files = [stored(settings, NORMED, f"weights-epoch-{epoch:05d}.safetensors") for epoch in (3, 2)]
    result = combine(settings, Combine.LAST_EPOCHS, files, NETWORK)
    assert result["batch_norm_images"] == 160
    assert result["num_images"] == 40
    assert result["accuracy"] == pytest.approx(right(result).mean())


def test_weights_are_scored_as_they_are_and_at_five_strengths_of_each_corruption(settings: Settings) -> None:
    question = {"study": 1, "weights": stored(settings, "1", "weights-best.safetensors")}
    found = measure_robustness(spec(model=PLAIN).as_json(), question, settings)  # type: ignore[arg-type]
    original = outputs(settings, "1")
    assert found["num_images"] == 40
    assert found["clean"] == pytest.approx((original.logits.argmax(axis=1) == original.labels).mean())
    assert found["parameters_of"] == "CIFAR-10-C"
    assert found["parameters"] == {name.value: list(values) for name, values in CIFAR_10_C.values.items()}
    assert all(len(values) == 5 and all(0 <= value <= 1 for value in values) for values in found["accuracy"].values())
    again = measure_robustness(spec(model=PLAIN).as_json(), question, settings)  # type: ignore[arg-type]
    assert again == found
