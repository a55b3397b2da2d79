"""A decoder process whose import has ended: it ends too, and says nothing."""

import io
import os
import subprocess
from pathlib import Path

import pytest

from models.data.decoder_process import MODULE, Config, File, receive, send
from models.imports import module_command, own_packages_first
from tests.models.data.importing.archives import png

FILES = [File(row, False, "", png(row)) for row in range(3)]


def written() -> bytes:
    """A batch as it is sent."""
    stream = io.BytesIO()
    send(stream, FILES, 3)
    return stream.getvalue()


def test_a_batch_is_received_as_it_was_sent_and_a_part_of_one_is_the_end() -> None:
    whole = written()
    files, channels = receive(io.BytesIO(whole))
    assert ([(file.row, file.data) for file in files], channels) == ([(file.row, file.data) for file in FILES], 3)
    for length in range(len(whole)):
        assert receive(io.BytesIO(whole[:length])) == ([], 0), length


@pytest.mark.parametrize("ends", ["in a batch", "before the answer"])
def test_a_decoder_ends_quietly_when_its_import_is_killed(tmp_path: Path, ends: str) -> None:
    for split in ("train", "test"):
        (tmp_path / split).touch()
    config = Config(12, "crop", str(tmp_path / "train"), str(tmp_path / "test"), 0)
    own, decoders = os.pipe()
    process = subprocess.Popen(
        module_command(MODULE),
        stdin=subprocess.PIPE,
        stdout=decoders,
        stderr=subprocess.PIPE,
        env=own_packages_first(os.environ),
    )
    os.close(decoders)
    os.close(own)  # nobody will read an answer
    batch = written()
    _, errors = process.communicate(config.to_line() + (batch[:-5] if ends == "in a batch" else batch), timeout=60)
    assert errors == b""
