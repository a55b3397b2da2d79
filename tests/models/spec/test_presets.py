"""The presets are the lab report's table: its networks, and how each row was trained."""

import pytest

from models.spec.experiment import ExperimentSpec
from models.spec.model import CnnSpec, ZooSpec
from models.spec.parse import load_spec, model_label, parse_spec
from models.spec.presets import experiment_presets, model_presets
from models.spec.training import ConstantSpec, ExponentialSpec, SgdSpec

# The lab report: convolutions as (channels, kernel, padding) by block, then the hidden layers.
NETWORKS = {
    "baseline": ([[(10, 5, 0)], [(20, 5, 0)]], (120, 84)),
    "narrow": ([[(6, 5, 0)], [(16, 5, 0)]], (120, 84)),
    "wide": ([[(32, 5, 0)], [(64, 5, 0)]], (124, 84)),
    "three_conv": ([[(16, 3, 1)], [(32, 3, 1)], [(64, 3, 1)]], (512, 64)),
    "three_blocks": (
        [[(32, 3, 1), (64, 3, 1)], [(128, 3, 1), (128, 3, 1)], [(256, 3, 1), (256, 3, 1)]],
        (1024, 512),
    ),
}
NETWORKS["three_blocks_dropout"] = NETWORKS["three_blocks_batch_norm"] = NETWORKS["three_blocks"]

# Row: network, epochs, batch, learning rate, augmented, decaying.
ROWS = {
    "1": ("baseline", 50, 16, 0.01, False, False),
    "2": ("baseline", 30, 16, 0.01, False, False),
    "2b": ("baseline", 50, 16, 0.01, False, False),
    "3a": ("narrow", 30, 16, 0.01, False, False),
    "3b": ("wide", 30, 16, 0.01, False, False),
    "3c": ("three_conv", 30, 16, 0.01, False, False),
    "3d": ("three_blocks", 30, 16, 0.01, False, False),
    "6a": ("three_blocks", 30, 128, 0.01, True, False),
    "6b": ("three_blocks", 30, 128, 0.1, True, True),
    "6c": ("three_blocks", 50, 128, 0.1, True, True),
    "6d": ("three_blocks_dropout", 50, 128, 0.1, True, True),
    "6e": ("three_blocks_batch_norm", 50, 128, 0.1, True, True),
}


def preset(name: str) -> ExperimentSpec:
    """A preset's spec."""
    return parse_spec({"preset": name})


@pytest.mark.parametrize("name", experiment_presets())
def test_every_experiment_preset_is_a_spec(name: str) -> None:
    spec = preset(name)
    assert load_spec(spec.as_json()) == spec


@pytest.mark.parametrize("name", model_presets())
def test_every_network_preset_is_known_by_its_name(name: str) -> None:
    assert model_label(parse_spec({"model": name}).model) == name
    assert model_label(parse_spec({"model": {"name": name, "input_size": 64}}).model) == name


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_are_the_reports(name: str) -> None:
    model = parse_spec({"model": name}).model
    assert isinstance(model, CnnSpec)
    blocks, hidden = NETWORKS[name]
    assert [[(c.channels, c.kernel_size, c.padding) for c in block.convs] for block in model.blocks] == blocks
    assert all(block.pool == 2 for block in model.blocks)
    assert model.head.hidden == hidden


def test_dropout_and_batch_norm_are_where_the_report_has_them() -> None:
    plain, dropout, norm = (
        parse_spec({"model": name}).model
        for name in ("three_blocks", "three_blocks_dropout", "three_blocks_batch_norm")
    )
    assert isinstance(plain, CnnSpec)
    assert isinstance(dropout, CnnSpec)
    assert isinstance(norm, CnnSpec)
    assert plain.head.dropout == ()
    for model in (dropout, norm):
        assert [block.dropout for block in model.blocks] == [0, 0.05, 0]
        assert model.head.dropout == (0.1, 0, 0.1)
    assert [[c.batch_norm for c in block.convs] for block in norm.blocks] == [[True, False]] * 3
    assert not any(c.batch_norm for block in dropout.blocks for c in block.convs)


@pytest.mark.parametrize("row", ROWS)
def test_rows_are_trained_as_the_report_trained_them(row: str) -> None:
    network, epochs, batch_size, lr, augmented, decaying = ROWS[row]
    spec = preset(f"lab-report/{row}")
    assert model_label(spec.model) == network
    assert (spec.epochs, spec.batch_size) == (epochs, batch_size)
    assert spec.optimizer == SgdSpec(lr=lr, momentum=0.9, weight_decay=0)
    assert spec.lr_scheduler == (ExponentialSpec(gamma=0.95) if decaying else ConstantSpec())
    flips = (0.5, 0.5, 15) if augmented else (0, 0, 0)
    augmentation = spec.augmentation
    assert (augmentation.hflip, augmentation.vflip, augmentation.rotation_degrees) == flips
    assert (spec.dataset.name, spec.dataset.val_fraction) == ("cifar10", 0.2)
    assert spec.dataset.evaluate_test == (row == "1")


def test_fine_tuning_rows_start_from_imagenet() -> None:
    squeezenet, resnet = preset("lab-report/5"), preset("lab-report/bonus")
    assert isinstance(squeezenet.model, ZooSpec)
    assert isinstance(resnet.model, ZooSpec)
    assert (squeezenet.model.name, squeezenet.model.pretrained) == ("squeezenet1_1", True)
    assert squeezenet.clip_grad_norm == 1.0  # what the report's NaN was about
    assert (resnet.model.name, resnet.model.pretrained, resnet.epochs) == ("resnet50", True, 30)
    assert resnet.optimizer.lr == 0.001
