"""The number format is one that the device computes in."""

import pytest
import torch
from torch import nn

from models.errors import SpecError
from models.spec.experiment import Precision
from worker.training.precision import MixedPrecision, resolve_precision

CPU = torch.device("cpu")


def test_precision_is_what_the_device_can_do() -> None:
    assert resolve_precision(Precision.AUTO, CPU) == Precision.FP32
    assert resolve_precision(Precision.BF16, CPU) == Precision.BF16
    with pytest.raises(SpecError, match="CUDA"):
        resolve_precision(Precision.FP16, CPU)


def test_bf16_computes_in_bf16() -> None:
    mixed_precision = MixedPrecision(Precision.BF16, CPU)
    with mixed_precision.autocast():
        assert nn.Linear(2, 2)(torch.zeros(1, 2)).dtype == torch.bfloat16
