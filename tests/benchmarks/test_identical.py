"""The comparison of seeded runs reports the first figure that differs, to the last bit."""

import math
from pathlib import Path

import torch
from safetensors.torch import save_file

from benchmarks.identical import as_hex, differences, digest_of_weights


def test_the_last_bit_of_a_loss_is_a_difference_and_the_first_is_named() -> None:
    loss = 2.3
    before = {"outcome": "completed", "epoch 1 val_loss": as_hex(loss), "epoch 2 val_loss": as_hex(1.0)}
    now = {**before, "epoch 1 val_loss": as_hex(math.nextafter(loss, 3)), "epoch 2 val_loss": as_hex(2.0)}
    assert not list(differences(before, before))
    found = list(differences(before, now))
    assert len(found) == 2
    assert found[0].startswith("epoch 1 val_loss was 0x1.2666666666666p+1 (2.3) and is 0x1.2666666666667p+1")


def test_a_figure_that_is_missing_is_a_difference() -> None:
    assert list(differences({"epoch 1 lr": as_hex(1.0)}, {})) == [
        "epoch 1 lr was 0x1.0000000000000p+0 (1.0) and is None"
    ]


def test_the_digest_is_of_the_weights_and_not_of_what_else_the_file_says(tmp_path: Path) -> None:
    weights = {"a": torch.zeros(3), "b": torch.ones(2)}
    for name, tensors, note in (
        ("one", weights, "1"),
        ("two", weights, "2"),
        ("other", {**weights, "a": weights["a"] + 1e-30}, "1"),
    ):
        save_file(tensors, tmp_path / name, {"note": note})
    one, two, other = (digest_of_weights(tmp_path / name) for name in ("one", "two", "other"))
    assert one == two != other
