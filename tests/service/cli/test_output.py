"""What is printed on a terminal: tables that fit it, and no control characters."""

import json
import os
import re
import subprocess
import sys
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from typer.testing import CliRunner

from models.errors import EpochalError
from service.cli import client as client_module
from service.cli import output
from service.cli.client import Problem
from service.cli.main import app
from tests.service.cli.documents import documents

HOSTILE = "bad\x1b[31m\r\n\t\x07\x00\x7f\x9b2J\u202egnp.exe\u2066\u2028 [bold]name[/] :fire: \\"
STEERING = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def item(number: int, name: str) -> dict[str, Any]:
    best = {"val_accuracy": {"value": 0.7, "epoch": 12}}
    return {
        "id": number, "name": name, "status": "completed", "model": "three_blocks", "dataset": "fashion_mnist",
        "progress": {"epoch": 150, "epochs": 150}, "best": best, "last": {"val_loss": 0.9}, "tags": [name],
        "created_at": "2026-01-01T00:00:00+00:00", "reason": name, "spec": {"name": name, "epochs": 3}, "runs": [
            {"attempt": 1, "worker": name, "status": "completed", "started_at": None, "reason": name}
        ], "warnings": [{"severity": "warning", "sentence": name, "suggestion": name}],
    }  # fmt: skip


class FakeLab:
    """Stands where a Client would: answers of a lab whose names were chosen by somebody hostile."""

    url = "http://lab"

    def __init__(self, *_: Any) -> None:
        self.name = HOSTILE
        self.deleted: list[str] = []
        self.batches: list[int] = []

    def get(self, path: str, **_: Any) -> Any:
        if path == "/experiments":
            return {"items": [item(1, self.name), item(2, "plain")], "next": None}
        if path.endswith("/verdict"):
            finding = {"severity": "problem", "sentence": self.name, "suggestion": self.name}
            return {"summary": self.name, "findings": [finding]}
        if path == "/presets":
            return {"experiments": {}}
        return documents(self.name).get(path) or item(1, self.name)

    def patch(self, path: str, body: Any) -> Any:
        return item(1, self.name)

    def post(self, path: str, body: Any = None, **_: Any) -> Any:
        if path.endswith("/2/cancel"):
            raise Problem({"title": self.name, "code": "conflict", "status": 409, "detail": self.name})
        if path == "/experiments":
            errors = [{"field": self.name, "message": self.name, "nearest": self.name}] * 2
            raise Problem(
                {"title": "no", "code": "x", "status": 422, "detail": self.name, "fix": self.name, "errors": errors}
            )
        return {**item(int(path.split("/")[2]), self.name), "status": "cancelled"}

    def delete(self, path: str) -> None:
        name = path.split("/")[2]
        if name == "2":
            raise Problem({"title": "no", "code": "conflict", "status": 409, "detail": self.name})
        self.deleted.append(name)

    def events(self, path: str, last_id: str | None) -> Iterator[Any]:
        for kind, data in (
            ("state", {"status": self.name, "reason": self.name}),
            ("notice", {"text": self.name}),
            ("progress", {"epoch": 1, "phase": self.name, "step": 1, "steps": 2}),
            ("epoch", {"epoch": 1}),
            ("end", {}),
        ):
            yield client_module.Event(kind, data, None)

    def post_images(self, path: str, files: list[Path], **_: Any) -> Any:
        self.batches.append(len(files))
        if len(files) > 100:
            raise Problem({"title": "no", "code": "too-large", "status": 413, "detail": "too many pixels"})
        for place, file in enumerate(files):
            if file.read_bytes() == b"broken":
                detail = f"image {place + 1}, '{file.name}', is damaged"
                raise Problem({"status": 422, "detail": detail, "index": place, "image": file.name})
        top = [{"label": self.name, "index": 0, "probability": 0.5, "calibrated_probability": 0.4}]
        predictions = [
            {"image": file.name, "index": place, "top": top, "known": True} for place, file in enumerate(files)
        ]
        return {"experiment_id": 1, "epoch": 3, "predictions": predictions}


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch) -> FakeLab:
    fake = FakeLab()
    monkeypatch.setattr(client_module, "Client", lambda *_: fake)
    return fake


@pytest.fixture
def run(lab: FakeLab, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    def invoke(*arguments: str, expect: int = 0, width: int = 80) -> Any:
        monkeypatch.setattr(output.console, "width", width)
        monkeypatch.setattr(output.Mode, "json", False)
        ended = CliRunner().invoke(app, [*arguments, "--url", "http://lab"])
        assert ended.exit_code == expect, f"{ended.output} {ended.exception!r}"
        return ended

    return invoke


COMMANDS = [
    ("list", 0), ("show 1", 0), ("show 1 --spec", 0), ("watch 1", 0), ("verdict 1", 0), ("submit baseline", 1),
    ("cancel 1", 0), ("cancel 2", 1), ("cancel 1 2 3", 1), ("resume 1", 0), ("delete 2", 1), ("delete 1 2", 1),
    ("study cancel 2 1", 1), ("study delete 1 2", 1), ("data remove 1 2", 1), ("model delete 1 2", 1),
    ("study list", 0), ("study show 1", 0), ("data list", 0), ("data show photos", 0), ("data health photos", 0),
    ("model list", 0), ("model show cats", 0), ("lr-tests", 0), ("confusion 1", 0), ("mistakes 1", 0),
    ("stability 1 2", 0), ("edit 1 --name x", 0),
]  # fmt: skip


SILENT = ("cancel 1", "resume 1", "edit 1 --name x")
"""Commands that show no text of the lab's."""


@pytest.mark.parametrize("script", [False, True])
@pytest.mark.parametrize(("command", "code"), COMMANDS)
def test_nothing_in_a_name_steers_the_terminal(run: Callable[..., Any], command: str, code: int, script: bool) -> None:
    ended = run(*command.split(), *(["--json"] if script else []), expect=code, width=600)
    assert not STEERING.search(ended.output), repr(ended.output)
    assert "\n \x1b" not in ended.output
    if not script and "--spec" not in command:
        assert ("[bold]name[/] :fire:" in ended.output) is (command not in SILENT)


@pytest.mark.parametrize("command", [command for command, code in COMMANDS if code == 0 and "--spec" not in command])
@pytest.mark.parametrize("text", ["\u7814\u7a76" * 30, HOSTILE])
def test_nothing_is_wider_than_the_terminal(run: Callable[..., Any], lab: FakeLab, command: str, text: str) -> None:
    lab.name = text
    lines = run(*command.split()).stdout.splitlines()
    assert [line for line in lines if cell_len(line) > 80] == []


def test_json_and_yaml_say_the_same_text_in_escapes(run: Callable[..., Any], lab: FakeLab) -> None:
    assert json.loads(run("show", "1", "--json").stdout)["name"] == HOSTILE
    assert yaml.safe_load(run("show", "1", "--spec").stdout)["name"] == HOSTILE
    lab.name = "\u7814\u7a76 \U0001f600"
    assert lab.name in run("show", "1", "--json").stdout
    assert lab.name in run("show", "1", "--spec").stdout


@given(st.text(st.characters()))
def test_visible_text_has_no_control_or_direction_character_and_can_be_encoded(text: str) -> None:
    seen = output.visible(text)
    seen.encode()
    assert not STEERING.search(seen)
    assert "\n" not in seen
    assert not any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in seen)
    if text.isascii() and text.isprintable():
        assert seen == text


def test_bytes_of_file_names_are_shown_as_bytes() -> None:
    assert output.visible(os.fsdecode(b"caf\xe9.png")) == "caf\\xe9.png"


@pytest.mark.parametrize("width", [60, 80, 100, 160])
@pytest.mark.parametrize(
    "name", ["a name of some length that does not fit anywhere near here, and goes on", "\u7814\u7a76" * 40]
)
def test_every_experiment_is_one_line_that_fits_and_its_name_has_room(
    run: Callable[..., Any], lab: FakeLab, width: int, name: str
) -> None:
    lab.name = name
    lines = [line.rstrip() for line in run("list", width=width).stdout.splitlines()]
    assert len(lines) == 3
    assert all(cell_len(line) <= width for line in lines)
    shown = lines[1].split("  ")[-1].strip()
    assert cell_len(shown) >= 22
    assert shown == name or (shown.endswith("\u2026") and name.startswith(shown[:-1].rstrip()))


def test_a_pipe_gets_whole_names_and_every_column(run: Callable[..., Any], lab: FakeLab) -> None:
    lab.name = "n" * 200
    lines = run("list", width=output.PIPED_WIDTH).stdout.splitlines()
    assert "n" * 200 in lines[1]
    assert "dataset" in lines[0]


def test_delete_and_cancel_take_several_and_name_those_that_were_refused(run: Callable[..., Any], lab: FakeLab) -> None:
    lab.name = "it runs"
    ended = run("delete", "1", "2", "3", "1", expect=1)
    assert lab.deleted == ["1", "3"]
    assert "experiment 2: it runs" in ended.stderr
    assert "1 of 3 were refused: 2" in ended.stderr
    found = json.loads(run("cancel", "1", "2", "--json", expect=1).stdout)["items"]
    assert found[0]["status"] == "cancelled"
    assert found[1]["error"]["status"] == 409
    assert run("delete", "4", "5").stdout.splitlines() == ["experiment 4 is deleted", "experiment 5 is deleted"]
    assert json.loads(run("delete", "6", "--json").stdout) == {"id": 6, "deleted": True}


@pytest.mark.parametrize(
    ("command", "noun", "key"),
    [("study delete", "study", "id"), ("data remove", "dataset", "name"), ("model delete", "model", "name")],
)
def test_studies_datasets_and_models_are_deleted_several_at_once(
    run: Callable[..., Any], lab: FakeLab, command: str, noun: str, key: str
) -> None:
    lab.name = "it is in use"
    ended = run(*command.split(), "1", "2", "3", "1", expect=1)
    assert lab.deleted == ["1", "3"]
    assert f"{noun} 2: it is in use" in ended.stderr
    assert "1 of 3 were refused: 2" in ended.stderr
    found = json.loads(run(*command.split(), "4", "2", "--json", expect=1).stdout)["items"]
    assert [(str(one[key]), "error" in one) for one in found] == [("4", False), ("2", True)]


@pytest.mark.parametrize("command", ["data remove", "model delete"])
def test_a_version_is_of_one_dataset_or_model(run: Callable[..., Any], lab: FakeLab, command: str) -> None:
    assert "--version" in run(*command.split(), "1", "3", "--version", "2", expect=2).stderr
    assert lab.deleted == []
    run(*command.split(), "1", "--version", "3")


def test_images_of_any_number_and_name_are_classified_in_one_answer(
    run: Callable[..., Any], lab: FakeLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(300):
        (folder / f"{number:03}.png").write_bytes(b"x")
    (folder / "notes.txt").write_text("no image")
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9\n.PNG")
    Path(odd).write_bytes(b"x")
    found = json.loads(run("classify", "1", str(folder), odd, "--json").stdout)["predictions"]
    assert len(found) == 301
    assert [prediction["index"] for prediction in found] == list(range(301))
    assert found[-2]["image"] == "299.png"
    assert lab.batches[0] == 256, "and halves where the lab finds that too much"
    assert "caf\\xe9\\n.PNG" in run("classify", "1", odd).stdout
    (folder / "280.png").write_bytes(b"broken")
    assert "photos/280.png is damaged" in run("classify", "1", "photos", expect=1).stderr
    assert json.loads(run("classify", "1", "photos", "--json", expect=1).stdout)["index"] == 280
    (tmp_path / "empty").mkdir()
    assert "holds no images" in run("classify", "1", "empty", expect=2).stderr
    assert "there is no file" in run("classify", "1", "gone\x1b[1m", expect=2).stderr


def test_an_error_keeps_its_own_lines_and_shows_others_in_escapes(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_error(EpochalError("worker ended; its log ends with:\nlast \x1b[31mline"))
    assert "  last \\x1b[31mline" in capsys.readouterr().err


def test_the_version_is_shown() -> None:
    ended = CliRunner().invoke(app, ["--version"])
    assert ended.exit_code == 0
    assert re.fullmatch(r"epochal \d+\.\d+\S*\n", ended.stdout)


@pytest.mark.parametrize(
    "arguments", [["--colour"], ["lst"], ["list", "--colour"], ["list", "--json\x1b[31m"], ["show", "x"]]
)
def test_what_is_not_known_is_a_usage_error(arguments: list[str]) -> None:
    ended = CliRunner().invoke(app, arguments)
    assert ended.exit_code == 2
    assert "\x1b[31m" not in ended.output


def test_output_that_nobody_reads_or_that_cannot_be_written_is_no_traceback(tmp_path: Path) -> None:
    command = f"{sys.executable} -m service.cli.main keys list --json --data-dir {tmp_path}"
    script = f"{command} | true; {command} > /dev/full; {command} >&-; echo done"
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    ended = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert ended.stdout == "done\n"
    assert "Traceback" not in ended.stderr
    assert "Exception ignored" not in ended.stderr
    assert "No space left on device" in ended.stderr


def test_a_dry_run_shows_parts_of_a_figure_in_words(run: Callable[..., Any], lab: FakeLab) -> None:
    measured = {"num_parameters": 76914, "disk": {"checkpoints": 1237124, "weights": 615312}, "finite": True}
    lab.post = lambda *_, **__: measured  # type: ignore[method-assign]
    shown = run("submit", "baseline", "--dry-run").output
    assert "checkpoints 1,237,124, weights 615,312" in shown
    assert "{" not in shown
