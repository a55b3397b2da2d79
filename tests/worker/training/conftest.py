"""One thread: the engine's tests use tiny networks, and share the machine."""

from collections.abc import Iterator

import pytest
import torch

from tests.worker.training.tiny import no_rates_tried


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def gpu() -> torch.device:
    """A GPU, for tests marked `gpu`; where there is none they are skipped."""
    if not torch.cuda.is_available():
        pytest.skip("no GPU on this machine")
    return torch.device("cuda")


@pytest.fixture(name="no_rates_tried")
def _no_rates_tried() -> Iterator[None]:
    """Divergences of this test are explained without a search for a rate that works."""
    with no_rates_tried():
        yield
