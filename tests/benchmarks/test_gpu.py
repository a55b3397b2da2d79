"""The checks of a GPU, done on a CPU as far as they go there."""

from pathlib import Path

import pytest
import torch

from benchmarks import gpu
from tests.worker.training.tiny import images


def test_steps_on_the_device_of_the_comparison_itself_differ_by_nothing() -> None:
    answer = gpu.agrees_with_cpu(images(size=32), "cpu", 0.01)
    assert answer == gpu.Answer("0.0e+00 at most over 3 steps", True)


def test_a_run_out_of_memory_is_told_and_the_next_one_trains() -> None:
    answer = gpu.out_of_memory_is_told(images(size=32), "cpu", 0.01)
    assert answer.figure == "OutOfMemoryError, told as out of memory; the next run completed"


def test_an_answer_that_is_no_is_seen_in_the_table() -> None:
    text = gpu.table({"one": gpu.Answer("1.0", True), "two": gpu.Answer("2.0", False)}, "cpu")
    assert text.splitlines()[-2:] == ["| one | 1.0 | yes |", "| two | 2.0 | NO |"]


def test_a_table_takes_the_place_of_the_last_one(tmp_path: Path) -> None:
    document = tmp_path / "benchmarks.md"
    document.write_text(gpu.DOCUMENT.read_text())
    gpu.write("| the first |", document)
    once = document.read_text()
    gpu.write("| the second |", document)
    assert document.read_text() == once.replace("| the first |", "| the second |")
    assert "| the first |" in once


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_it_says_so(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["gpu", "--write"])
    assert gpu.main() == 0
    assert "nothing was checked" in capsys.readouterr().out
