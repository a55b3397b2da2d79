"""Networks are described by a process of its own, which comes and goes as it is needed."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from models.data.catalogue import get_dataset
from models.errors import SpecError
from models.spec.parse import parse_spec
from service.catalogue.describe import describe_spec
from service.catalogue.describing import Describing
from tests.processes import wait_until

CIFAR10 = get_dataset("cifar10")
TOO_LARGE = {"model": {"blocks": [{"convs": [{"channels": 3, "kernel_size": 31}]}] * 3}}


@pytest.fixture
def describing() -> Iterator[Describing]:
    describing = Describing(idle_seconds=1.0)
    yield describing
    describing.close()


def test_it_answers_as_this_process_would_is_replaced_when_killed_and_ends_when_idle(describing: Describing) -> None:
    spec = parse_spec({"model": "baseline"})
    assert describing.pid is None
    assert describing.ask("describe_spec", spec, CIFAR10) == describe_spec(spec, CIFAR10)
    with pytest.raises(SpecError) as here:
        describe_spec(parse_spec(TOO_LARGE), CIFAR10)
    with pytest.raises(SpecError) as there:
        describing.ask("describe_spec", parse_spec(TOO_LARGE), CIFAR10)
    assert (there.value.errors, there.value.fix) == (here.value.errors, here.value.fix)
    several = [(parse_spec(body), CIFAR10) for body in ({"model": "narrow"}, TOO_LARGE, {"model": "wide"})] * 8
    found = describing.ask_all("describe_spec", several)
    assert [isinstance(one, SpecError) for one in found] == [False, True, False] * 8, "each in its place"
    assert [one.spec for one in found if not isinstance(one, SpecError)] == [several[0][0], several[2][0]] * 8
    killed = describing.pid
    assert killed is not None
    os.kill(killed, signal.SIGKILL)
    assert describing.ask("architectures")
    assert describing.pid not in (None, killed)
    wait_until(lambda: describing.pid is None, what="the idle process to end")


def test_the_api_imports_no_torch() -> None:
    names = (
        "service.predictions.predictor",
        "service.predictions.weights",
        "models.data.decoding",
        "torch",
        "torchvision",
    )
    code = f"import sys, service.server; print(*[name in sys.modules for name in {names}])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["True", "True", "True", "False", "False"]
