"""`epochal classify DIR --csv FILE`, against a lab that serves."""

import csv
import io
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from models.store import runs
from models.store.states import Status
from service.app import create_app
from service.cli import local_prediction, options
from service.cli.classify_folder import images_below
from service.cli.client import Client, Problem
from service.cli.main import app
from service.cli.prediction_table import Table, cell
from service.export.served import FORM, pack, unpack
from tests.service.lab_of_one import Filled, LiveServer, settings_in
from tests.service.predictions.pictures import encode
from tests.service.predictions.test_calibration import about, keep_outputs
from tests.service.predictions.trained import Lab, with_nan

Run = Callable[..., Any]
COLORS = ("red", "blue", "green", "white", "black", "gray", "cyan")


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A lab with two experiments that have ended, one that has diverged, and one of images in gray."""
    filled = Filled(settings_in(tmp_path_factory.mktemp("folders")))
    lab = Lab(filled.store, filled.settings)
    for seed in (0, 1):
        one = lab.train(seed=seed)
        keep_outputs(lab, one, about(one))
        with filled.store.writing() as session:
            runs.settle(session, one.claim, Status.COMPLETED)
    diverged = lab.train()
    lab.save(with_nan(diverged))
    lab.train(dataset="fashion-mnist")
    with LiveServer(create_app(filled.settings)) as server:
        yield server.url
    filled.store.dispose()


@pytest.fixture
def client(address: str) -> Iterator[Client]:
    with Client(address) as client:
        yield client


@pytest.fixture
def run(client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command in a folder with `images`: seven pictures in it, and in folders in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(options, "connect", lambda *_: client)
    monkeypatch.setattr(local_prediction, "MOST_AT_ONCE", 3)
    for number, color in enumerate(COLORS):
        path = Path("images", *(["more", "below"] if number > 4 else []), f"{color}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(Image.new("RGB", (32, 32), color), "PNG"))

    def run(*arguments: str, expect: int = 0) -> Any:
        result = CliRunner().invoke(app, ["classify", *arguments], env={"COLUMNS": "200"})
        assert result.exit_code == expect, f"{result.stdout}\n{result.stderr}"
        return result

    return run


def rows_of(path: str) -> list[dict[str, str]]:
    with Path(path).open(newline="") as file:
        return list(csv.DictReader(file))


def test_each_image_has_a_row_that_says_what_a_request_for_it_says(run: Run, client: Client) -> None:
    answer = run("1", "images", "--csv", "out.csv", "--top-k", "2", "--json")
    assert answer.stderr == "", "a bar is for a terminal"
    told = json.loads(answer.stdout)
    assert (told["images"], told["classified_now"], told["failed"]) == (7, 7, 0)
    rows = rows_of("out.csv")
    assert [row["image"] for row in rows] == [
        *("black.png", "blue.png", "green.png", "red.png", "white.png"),
        *("more/below/cyan.png", "more/below/gray.png"),
    ]
    assert {row["by"] for row in rows} == {"experiment 1, best weights of epoch 3"}
    for row in rows:
        answer = client.post_images("/experiments/1/predictions", [Path("images", row["image"])], top_k=2)
        prediction = answer["predictions"][0]
        first, second = prediction["top"]
        assert (row["label"], row["label_2"]) == (first["label"], second["label"])
        assert row["probability"] == f"{first['probability']:.6f}"
        assert row["probability_2"] == f"{second['probability']:.6f}"
        assert row["calibrated_probability"] == f"{prediction['calibrated_probability']:.6f}"
        assert row["known"] == str(prediction["known"]).lower()


@pytest.mark.parametrize(("experiment", "side"), [(1, 32), (4, 28)])
def test_files_that_are_decoded_together_have_the_rows_that_they_have_by_themselves(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, experiment: int, side: int
) -> None:
    """`side` is that of the network's images, which are in colour and in gray."""
    colors = encoded_noise(side)
    files = {
        "colors.png": colors,
        "broken.png": colors[:-30],
        "gray.png": encoded_noise(side, "L"),
        "deep.png": encoded_noise(side, "I;16"),
        "transparent.png": encoded_noise(side, "RGBA"),
        "palette.png": encoded_noise(side, "P"),
        "photo.jpg": encoded_noise(side, kind="JPEG"),
        "larger.png": encoded_noise(side + 1),
        "large.png": encoded_noise(100),
        "none.png": b"",
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    assert len(files["colors.png"]) < local_prediction.SMALL_FILE_BYTES < len(files["large.png"])
    network = local_prediction.LocalNetwork(client.download(f"/experiments/{experiment}/export", format="served")[1])
    together = network.classify(str(tmp_path), list(files), 2)
    monkeypatch.setattr(local_prediction, "SMALL_FILE_BYTES", -1)
    assert together == network.classify(str(tmp_path), list(files), 2)
    assert [row[0] for row in together] == list(files)
    assert [row[0] for row in together if row[-1]] == ["broken.png", "none.png"]


def encoded_noise(side: int, mode: str = "RGB", kind: str = "PNG") -> bytes:
    """A picture of random pixels."""
    noise = np.random.default_rng(side).integers(0, 256, (side, side, 3), dtype=np.uint8)
    if mode == "I;16":
        return encode(Image.fromarray(noise[..., 0].astype(np.uint16) * 257), kind)
    return encode(Image.fromarray(noise).convert(mode), kind)


def test_one_broken_file_has_a_row_that_says_why_and_the_rest_are_classified(run: Run) -> None:
    Path("images/broken.png").write_bytes(Path("images/red.png").read_bytes()[:-30])
    Path("images/text.jpg").write_text("no picture")
    Path("images/link.png").symlink_to("gone.png")
    answer = run("1", "images", "--csv", "out.csv", expect=1)
    assert "3 could not be classified" in answer.stdout
    errors = {row["image"]: row["error"] for row in rows_of("out.csv") if row["error"]}
    assert errors.keys() == {"broken.png", "text.jpg", "link.png"}
    assert errors["broken.png"].startswith("is damaged or cut off")
    assert errors["text.jpg"].startswith("is of no known kind")
    assert errors["link.png"] == "cannot be read: No such file or directory"
    assert len([row for row in rows_of("out.csv") if row["label"]]) == 7
    before = Path("out.csv").read_bytes()
    run("1", "images", "--csv", "out.csv", expect=1)
    assert Path("out.csv").read_bytes() == before, "a row is written once"


def test_after_ctrl_c_the_same_command_goes_on(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run("1", "images", "--csv", "whole.csv")
    append = Table.append

    def interrupted(table: Table, rows: Sequence[list[str]]) -> None:
        if len(rows) < 3:
            raise KeyboardInterrupt
        append(table, rows)

    monkeypatch.setattr(Table, "append", interrupted)
    stopped = run("1", "images", "--csv", "out.csv", expect=130)
    assert "stopped: 6 of 7 images are in out.csv" in stopped.stdout
    assert len(rows_of("out.csv")) == 6
    monkeypatch.setattr(Table, "append", append)
    assert "6 of 7 images are in out.csv already" in run("1", "images", "--csv", "out.csv").stdout
    assert Path("out.csv").read_bytes() == Path("whole.csv").read_bytes()


def test_a_file_that_ends_the_process_which_reads_it_has_a_row_that_says_so(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = local_prediction.read_file

    def killed(path: str) -> bytes:
        if path.endswith("green.png"):
            os.kill(os.getpid(), signal.SIGKILL)
        return read(path)

    monkeypatch.setattr(local_prediction, "read_file", killed)
    run("1", "images", "--csv", "out.csv", expect=1)
    errors = {row["image"]: row["error"] for row in rows_of("out.csv") if row["error"]}
    assert list(errors) == ["green.png"]
    assert errors["green.png"].startswith("ends the process that decodes it")
    assert len(rows_of("out.csv")) == 7


def test_the_process_that_predicts_may_be_killed_and_ends_with_the_command(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(local_prediction, "unpack", lambda _: os.kill(os.getpid(), signal.SIGKILL))
        shown = run("1", "images", "--csv", "out.csv", expect=1).stderr
        assert "The process that predicts has ended" in shown
        assert "exit code -9" in shown
    with monkeypatch.context() as patched:
        patched.setattr(options, "connect", refuse)
        assert "no lab runs here" in run("1", "images", "--csv", "out.csv", expect=1).stderr
    assert multiprocessing.active_children() == []
    assert rows_of("out.csv") == []
    run("1", "images", "--csv", "out.csv")
    assert multiprocessing.active_children() == []
    assert len(rows_of("out.csv")) == 7


def refuse(*_: object) -> Client:
    raise options.LabNotRunning("no lab runs here")


def test_a_command_that_is_not_understood_ends_the_process_that_was_started_for_it() -> None:
    command = [sys.executable, "-m", "epochal", "classify", "--csv"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 2, "and its output has been closed by all"
    assert "'--csv' requires an argument" in done.stderr


def test_weights_that_give_no_finite_answer_are_refused_as_by_a_request(run: Run, client: Client) -> None:
    with pytest.raises(Problem) as problem:
        client.post_images("/experiments/3/predictions", [Path("images/red.png")])
    assert problem.value.detail in run("3", "images", "--csv", "out.csv", expect=1).stderr
    assert rows_of("out.csv") == []


def test_a_lab_of_another_version_is_refused(run: Run, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    download = client.download
    network, _ = unpack(download("/experiments/1/export", format="served")[1])

    def refused(content: bytes | None) -> str:
        def answer(path: str, **params: str) -> tuple[str, bytes]:
            return download(path, **{**params, "format": "unknown"}) if content is None else ("a.zip", content)

        monkeypatch.setattr(client, "download", answer)
        shown: str = run("1", "images", "--csv", "out.csv", expect=1).stderr
        assert "another version of Epochal" in shown
        return shown

    assert "sends no networks" in refused(None)
    newer = refused(pack(replace(network, form=FORM + 1), b"", b""))
    assert f"has the form {FORM + 1}, and this version of Epochal reads {FORM}" in newer
    for content in (b"", b"PK", pack(network, b"graph", b"weights"), compressed(pack(network, b"", b""))):
        refused(content)
    assert rows_of("out.csv") == []


def compressed(content: bytes) -> bytes:
    """The same zip with members that are compressed, as no lab sends it."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    return out.getvalue()


@pytest.mark.parametrize("cut", [1, 30, 400])
def test_a_line_that_was_cut_off_is_written_again(run: Run, cut: int) -> None:
    run("1", "images", "--csv", "whole.csv")
    whole = Path("whole.csv").read_bytes()
    Path("out.csv").write_bytes(whole[:-cut])
    run("1", "images", "--csv", "out.csv")
    assert Path("out.csv").read_bytes() == whole


def test_what_is_no_table_of_this_kind_is_left_alone(run: Run) -> None:
    run("1", "images", "--csv", "out.csv")
    before = Path("out.csv").read_bytes()
    assert "other columns" in run("1", "images", "--csv", "out.csv", "--top-k", "1", expect=1).stderr
    assert "by experiment 1, best" in run("2", "images", "--csv", "out.csv", expect=1).stderr
    assert Path("out.csv").read_bytes() == before
    for content in (b"a,b\n1,2\n", b"notes", b"\xff\xfe\n"):
        Path("other.csv").write_bytes(content)
        assert "other columns" in run("1", "images", "--csv", "other.csv", expect=1).stderr
        assert Path("other.csv").read_bytes() == content
    assert "needs exactly one folder of images" in run("1", "images/red.png", "--csv", "a.csv", expect=2).stderr
    assert "there is no folder gone" in run("1", "gone", "--csv", "a.csv", expect=2).stderr
    Path("empty").mkdir()
    assert "holds no images" in run("1", "empty", "--csv", "a.csv", expect=2).stderr
    assert not Path("a.csv").exists()


@pytest.mark.parametrize("target", ["-", "/dev/zero", "pipe", "images"])
def test_a_table_is_a_file_that_can_be_read_again(run: Run, target: str) -> None:
    """A device such as /dev/zero would be read for ever as the rows that exist already."""
    os.mkfifo("pipe")
    refused = run("1", "images", "--csv", target, expect=1).stderr
    assert f"{target} is not a regular file" in refused.replace("\n", " ")
    assert not Path("./-").exists()


def test_one_image_is_an_image(run: Run) -> None:
    assert "classified 2 images" in run("1", "images/more", "--csv", "two.csv").stdout
    Path("images/more/below/gray.png").unlink()
    assert "classified 1 image in" in run("1", "images/more", "--csv", "one.csv").stdout


def test_two_commands_do_not_write_one_table(run: Run) -> None:
    with Table.open(Path("out.csv"), 3):
        assert "being written by another" in run("1", "images", "--csv", "out.csv", expect=1).stderr


def test_names_are_one_line_each_and_no_formulas() -> None:
    assert cell("a.png") == "a.png"
    for formula in ("=1+1.png", "+a.png", "-a.png", "@a.png", "'=a.png"):
        assert cell(formula) == f"'{formula}"
    assert cell("a\nb\t\x1b[1m.png") == "a\\nb\\t\\x1b[1m.png"
    assert cell(os.fsdecode(b"caf\xe9.png")) == "caf\\xe9.png"


def test_odd_names_are_classified_and_found_again(run: Run) -> None:
    odd = ["=cmd|'.png", 'a,"b".png', "new\nline.png", os.fsdecode(b"caf\xe9.png"), "caf\u00e9.PNG", " .png"]
    for name in odd:
        Path("images", name).write_bytes(Path("images/red.png").read_bytes())
    Path("images/.hidden.png").write_bytes(b"")
    Path("images/notes.txt").write_bytes(b"")
    run("1", "images", "--csv", "out.csv")
    rows = rows_of("out.csv")
    assert {row["image"] for row in rows} >= {cell(name) for name in odd}
    assert len(rows) == len(list(images_below(Path("images")))) == 7 + len(odd)
    before = Path("out.csv").read_bytes()
    run("1", "images", "--csv", "out.csv")
    assert Path("out.csv").read_bytes() == before
