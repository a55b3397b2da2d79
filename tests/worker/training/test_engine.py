"""train() from end to end on tiny real images."""

import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, safe_open
from torch.nn import functional as F

from models.curves.metrics import summarise
from models.data.splits import split_indices
from models.evaluation.outputs import read_about, read_outputs
from models.files import sha256_of
from models.networks.build import build_network
from models.networks.inputs import preprocessing_for
from models.spec.experiment import ExperimentSpec
from tests.worker.training.tiny import NETWORK, figures, images, run, spec
from worker.training import loop
from worker.training.engine import train
from worker.training.sink import MemorySink


def plain_evaluation(spec: ExperimentSpec, weights: Path) -> tuple[float, float]:
    """Loss and accuracy on the validation split as anyone would compute them, from the file alone."""
    dataset = images()
    seen = preprocessing_for(spec, dataset.info)
    network = build_network(spec.model, num_classes=10, in_channels=3, size=seen.input_size)
    network.load_state_dict(load_file(weights))
    network.eval()
    _, validation = split_indices(dataset.train_labels, spec.dataset)
    pixels = torch.from_numpy(dataset.train_images[validation]).float() / 255
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (seen.mean, seen.std))
    pixels = F.interpolate((pixels - mean) / std, (seen.input_size, seen.input_size), mode="bilinear")
    labels = torch.from_numpy(dataset.train_labels[validation])
    with torch.no_grad():
        outputs = network(pixels)
    return F.cross_entropy(outputs, labels).item(), (outputs.argmax(1) == labels).float().mean().item()


def test_a_run_completes_with_an_epoch_after_the_other(tmp_path: Path) -> None:
    outcome, sink = run(tmp_path)
    assert outcome.status == "completed"
    assert [metrics.epoch for metrics in sink.epochs] == [1, 2, 3]
    assert all(np.isfinite(metrics.train_loss) and metrics.images_per_second > 0 for metrics in sink.epochs)
    assert {kind for kind, _, _ in sink.saved} == {
        "checkpoint",
        "weights-best",
        "weights-last",
        "weights-epoch",
        "kernels",
        "graph",
        "outputs-validation",
    }


def test_the_accuracies_of_the_classes_make_up_the_accuracy(tmp_path: Path) -> None:
    _, sink = run(tmp_path, epochs=2)
    _, validation = split_indices(images().train_labels, spec().dataset)
    counts = np.bincount(images().train_labels[validation], minlength=10)
    for metrics in sink.epochs:
        of_classes = sink.class_accuracies[metrics.epoch]
        assert of_classes is not None
        assert [value is None for value in of_classes] == (counts == 0).tolist()
        correct = sum((value or 0) * count for value, count in zip(of_classes, counts, strict=True))
        assert correct / counts.sum() == pytest.approx(metrics.val_accuracy, abs=1e-12)


@pytest.mark.parametrize("model", [NETWORK, {**NETWORK, "input_size": 20}])
def test_the_stored_loss_is_that_of_the_stored_weights(tmp_path: Path, model: dict[str, object]) -> None:
    _, sink = run(tmp_path, model=model)
    loss, accuracy = plain_evaluation(spec(model=model), tmp_path / "weights-last.safetensors")
    assert sink.epochs[-1].val_loss == pytest.approx(loss, abs=1e-6)
    assert sink.epochs[-1].val_accuracy == pytest.approx(accuracy)


def test_averaged_weights_are_what_is_measured_and_stored(tmp_path: Path) -> None:
    _, sink = run(tmp_path, ema_decay=0.9)
    loss, _ = plain_evaluation(spec(), tmp_path / "weights-last.safetensors")
    assert sink.epochs[-1].val_loss == pytest.approx(loss, abs=1e-6)
    _, plain = run(tmp_path / "plain")
    assert plain.epochs[-1].val_loss != sink.epochs[-1].val_loss
    assert plain.epochs[-1].train_loss == sink.epochs[-1].train_loss


def test_the_best_weights_are_of_the_epoch_that_the_summary_calls_best_the_first_of_equals(tmp_path: Path) -> None:
    outcome, sink = run(tmp_path, epochs=6, optimizer={"name": "sgd", "lr": 0.2}, dataset={"evaluate_test": True})
    number = summarise(sink.epochs)["val_accuracy"].best_epoch
    best = next(metrics for metrics in sink.epochs if metrics.epoch == number)
    assert best == max(sink.epochs, key=lambda metrics: metrics.val_accuracy), "max takes the first of equals"
    assert outcome.test is not None
    assert outcome.test["epoch"] == number
    assert sink.verdicts[-1].best_by_accuracy.epoch == number
    with safe_open(tmp_path / "weights-best.safetensors", "pt") as file:
        assert json.loads(file.metadata()["epochal"])["epoch"] == best.epoch
    loss, accuracy = plain_evaluation(spec(), tmp_path / "weights-best.safetensors")
    assert (loss, accuracy) == (pytest.approx(best.val_loss, abs=1e-6), pytest.approx(best.val_accuracy))


def test_weights_carry_the_network_and_the_preprocessing(tmp_path: Path) -> None:
    run(tmp_path)
    with safe_open(tmp_path / "weights-last.safetensors", "pt") as file:
        about = json.loads(file.metadata()["epochal"])
    assert about["model"] == spec().as_json()["model"]
    assert about["preprocessing"] == preprocessing_for(spec(), images().info).to_json()
    assert about["epoch"] == 3


def test_the_graph_is_written_once_and_before_the_first_weights(tmp_path: Path) -> None:
    _, sink = run(tmp_path)
    kinds = [kind for kind, _, _ in sink.saved]
    assert kinds.count("graph") == 1
    assert kinds.index("graph") < kinds.index("weights-last")
    assert (tmp_path / "graph.onnx").stat().st_size > 0


def test_a_network_that_cannot_be_exported_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(about: object) -> bytes:
        raise RuntimeError("no such operator")

    monkeypatch.setattr("worker.training.recorder.export_described", refuse)
    outcome, sink = run(tmp_path)
    assert outcome.status == "completed"
    assert [code for code, _, _ in sink.notices].count("not-exported") == 1


def test_the_first_layers_kernels_of_every_epoch_are_kept(tmp_path: Path) -> None:
    run(tmp_path)
    kernels = load_file(tmp_path / "kernels.safetensors")["kernels"]
    last = load_file(tmp_path / "weights-last.safetensors")["features.0.weight"]
    assert kernels.shape == (3, 4, 3, 3, 3)
    assert torch.equal(kernels[-1], last)
    assert not torch.equal(kernels[0], last)


def test_training_and_validation_loss_are_means_per_image_on_one_scale(tmp_path: Path) -> None:
    """With a rate of next to nothing and no dropout, the training loss is a plain evaluation of the same images."""
    plain = {**NETWORK, "head": {"hidden": [16]}, "blocks": [{"convs": [{"channels": 4, "padding": 1}]}]}
    body = {"model": plain, "epochs": 1, "optimizer": {"name": "sgd", "lr": 1e-12, "momentum": 0}, "batch_size": 13}
    body |= {"label_smoothing": 0.3, "class_weights": "balanced"}
    _, sink = run(tmp_path, **body)
    dataset = images()
    train_indices, _ = split_indices(dataset.train_labels, spec().dataset)
    outputs = []
    network = build_network(spec(**body).model, num_classes=10, in_channels=3, size=16)
    network.load_state_dict(load_file(tmp_path / "weights-last.safetensors"))
    seen = preprocessing_for(spec(), dataset.info)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (seen.mean, seen.std))
    with torch.no_grad():
        outputs = network((torch.from_numpy(dataset.train_images[train_indices]).float() / 255 - mean) / std)
    expected = F.cross_entropy(outputs, torch.from_numpy(dataset.train_labels[train_indices])).item()
    assert sink.epochs[0].train_loss == pytest.approx(expected, abs=1e-5)


def test_validation_images_are_never_augmented_and_the_network_is_in_evaluation_mode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[bool, torch.Tensor]] = []
    predict = loop.predict

    def spy(network: torch.nn.Module, batch: torch.Tensor, augmentation: str) -> torch.Tensor:
        seen.append((network.training, batch.clone()))
        return predict(network, batch, augmentation)

    monkeypatch.setattr(loop, "predict", spy)
    augmentation = {"hflip": 0.5, "rotation_degrees": 90, "random_erase": 1.0, "cutout_pixels": 4, "shift_pixels": 4}
    run(tmp_path, augmentation=augmentation, epochs=2)
    run(tmp_path / "plain", epochs=2)
    assert not any(training for training, _ in seen)
    assert all(torch.equal(batch, seen[0][1]) for _, batch in seen)


def test_early_stopping_ends_the_run(tmp_path: Path) -> None:
    stopping = {"monitor": "val_loss", "patience": 2, "min_delta": 10.0}
    outcome, sink = run(tmp_path, epochs=50, early_stopping=stopping)
    assert outcome.status == "completed"
    assert len(sink.epochs) == 3


def test_the_test_split_is_measured_with_the_best_weights(tmp_path: Path) -> None:
    outcome, sink = run(tmp_path, epochs=4, dataset={"name": "cifar10", "evaluate_test": True})
    dataset, seen = images(), preprocessing_for(spec(), images().info)
    network = build_network(spec().model, num_classes=10, in_channels=3, size=16).eval()
    network.load_state_dict(load_file(tmp_path / "weights-best.safetensors"))
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (seen.mean, seen.std))
    with torch.no_grad():
        outputs = network((torch.from_numpy(dataset.test_images).float() / 255 - mean) / std)
    labels = torch.from_numpy(dataset.test_labels)
    assert outcome.test is not None
    assert outcome.test["loss"] == pytest.approx(F.cross_entropy(outputs, labels).item(), abs=1e-6)
    assert outcome.test["accuracy"] == pytest.approx((outputs.argmax(1) == labels).float().mean().item())
    assert outcome.test["epoch"] == max(sink.epochs, key=lambda m: (m.val_accuracy, -m.val_loss)).epoch


def test_the_outputs_that_are_kept_are_those_of_the_best_weights(tmp_path: Path) -> None:
    outcome, sink = run(tmp_path, epochs=4, dataset={"name": "cifar10", "val_fraction": 0.5, "evaluate_test": True})
    dataset, seen = images(), preprocessing_for(spec(), images().info)
    network = build_network(spec().model, num_classes=10, in_channels=3, size=16).eval()
    network.load_state_dict(load_file(tmp_path / "weights-best.safetensors"))
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (seen.mean, seen.std))
    _, held_out = split_indices(dataset.train_labels, spec(dataset={"val_fraction": 0.5}).dataset)
    for name, pixels, labels in (
        ("validation", dataset.train_images[held_out], dataset.train_labels[held_out]),
        ("test", dataset.test_images, dataset.test_labels),
    ):
        kept = read_outputs(tmp_path / f"outputs-{name}.safetensors")
        with torch.no_grad():
            expected = network((torch.from_numpy(pixels).float() / 255 - mean) / std).numpy()
        assert np.allclose(kept.logits, expected, atol=1e-5)
        assert np.array_equal(kept.labels, labels)
        assert kept.positions.tolist() == list(range(len(labels)))
        assert kept.about.weights_sha256 == sha256_of(tmp_path / "weights-best.safetensors")
        assert (kept.about.split, kept.about.num_images) == (name, len(labels))
        assert kept.about.class_names == dataset.info.class_names
        assert kept.about.epoch == sink.verdicts[-1].best_by_accuracy.epoch
    assert outcome.test is not None
    assert outcome.test["accuracy"] == pytest.approx((kept.logits.argmax(1) == kept.labels).mean())


def test_the_last_verdict_says_how_far_probabilities_can_be_trusted(tmp_path: Path) -> None:
    _, sink = run(tmp_path, dataset={"name": "cifar10", "val_fraction": 0.5})
    fitted = read_about(tmp_path / "outputs-validation.safetensors").calibration
    assert fitted is not None
    (said,) = [finding for finding in sink.verdicts[-1].findings if finding.code == "calibration"]
    assert said.values["temperature"] == fitted.temperature
    assert f"{100 * fitted.error:.1f}%" in said.sentence
    assert not [finding for finding in sink.verdicts[0].findings if finding.code == "calibration"]


def test_a_cancelled_run_keeps_the_outputs_of_its_best_weights_and_one_without_an_epoch_has_none(
    tmp_path: Path,
) -> None:
    for stop_at, kept in ((12, True), (2, False)):
        folder, asked = tmp_path / str(stop_at), iter(range(100))
        train(
            spec(),
            images(),
            MemorySink(),
            folder,
            device="cpu",
            should_stop=lambda asked=asked, stop_at=stop_at: "cancel" if next(asked) == stop_at else None,
        )
        assert (folder / "outputs-validation.safetensors").is_file() is kept


def test_a_cancelled_run_keeps_its_last_weights(tmp_path: Path) -> None:
    sink, asked = MemorySink(), iter(range(100))
    outcome = train(
        spec(), images(), sink, tmp_path, device="cpu", should_stop=lambda: "cancel" if next(asked) == 7 else None
    )
    assert outcome.status == "cancelled"
    assert len(sink.epochs) == 1
    assert (tmp_path / "weights-last.safetensors").is_file()


@pytest.mark.parametrize(("asked_from", "epochs"), [(1, 1), (8, 1), (12, 2)])
def test_a_run_that_is_asked_to_end_early_keeps_its_whole_epochs_and_completes(
    tmp_path: Path, asked_from: int, epochs: int
) -> None:
    sink, calls = MemorySink(), iter(range(1, 1000))
    outcome = train(
        spec(dataset={"evaluate_test": True}),
        images(),
        sink,
        tmp_path,
        device="cpu",
        should_stop=lambda: "stop" if next(calls) >= asked_from else None,
    )
    assert (outcome.status, outcome.reason) == ("completed", "ended early by request")
    assert [metrics.epoch for metrics in sink.epochs] == list(range(1, epochs + 1))
    assert outcome.test is not None
    assert (tmp_path / "outputs-validation.safetensors").is_file()
    assert sink.verdicts


def test_a_run_that_ended_early_is_continued_to_the_result_of_one_that_did_not(tmp_path: Path) -> None:
    whole, first, second, calls = MemorySink(), MemorySink(), MemorySink(), iter(range(1, 1000))
    train(spec(), images(), whole, tmp_path / "whole", device="cpu")
    train(
        spec(), images(), first, tmp_path / "a", device="cpu", should_stop=lambda: "stop" if next(calls) > 7 else None
    )
    train(spec(), images(), second, tmp_path / "b", device="cpu", checkpoints=first.checkpoints())
    assert [each.val_loss for each in [*first.epochs, *second.epochs]] == [each.val_loss for each in whole.epochs]


def test_every_option_at_once_trains(tmp_path: Path) -> None:
    outcome, sink = run(
        tmp_path,
        augmentation={
            "hflip": 0.5,
            "vflip": 0.2,
            "rotation_degrees": 10,
            "shift_pixels": 1,
            "crop_padding": 1,
            "cutout_pixels": 3,
            "random_erase": 0.3,
            "color_jitter": {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "hue": 0.1},
            "mixup_alpha": 0.4,
        },
        optimizer={"name": "adamw", "lr": 0.01},
        lr_scheduler={"name": "cosine", "warmup_epochs": 0.5},
        fine_tuning={"freeze_backbone_epochs": 1, "backbone_lr_factor": 0.5},
        accumulate_batches=2,
        label_smoothing=0.1,
        clip_grad_norm=1.0,
        ema_decay=0.99,
        test_time_augmentation="mirror",
        model={"name": "fast_resnet", "widths": [4, 8, 8]},
        progressive_resizing=[{"from_epoch": 1, "input_size": 12}, {"from_epoch": 2, "input_size": 16}],
        early_stopping={"monitor": "val_accuracy", "patience": 3},
        precision="bf16",
    )
    assert outcome.status == "completed"
    assert len(sink.epochs) == 3


def test_a_verdict_and_the_environment_are_given(tmp_path: Path) -> None:
    _, sink = run(tmp_path)
    assert sink.verdicts[-1].finished is True
    environment = sink.environments[-1]
    assert environment["threads"] == 1
    assert environment["dataset_fingerprint"] == images().fingerprint
    assert environment["versions"]["torch"] == version("torch")
    assert environment["seconds"]["training"] > 0


def test_the_same_spec_gives_the_same_run(tmp_path: Path) -> None:
    _, first = run(tmp_path / "first")
    torch.manual_seed(123)
    _, second = run(tmp_path / "second")
    assert figures(first.epochs) == figures(second.epochs)
    _, other = run(tmp_path / "other", seed=1)
    assert figures(first.epochs) != figures(other.epochs)
