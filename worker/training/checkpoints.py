"""Checkpoints: one file with all that is needed to go on training, written whole or not at all."""

import io
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from models.errors import CorruptFile
from models.files import write

VERSION = 1
RESUME = "make room on the disk of the data directory, or make it writable, then resume the experiment"
"""What to do when a file of a run cannot be written."""
KEPT = 2
"""Checkpoints that are kept: the newest, and the one before it in case the newest cannot be read."""


def save_checkpoint(folder: Path, state: dict[str, Any], run: dict[str, str]) -> Path:
    """Write a checkpoint, named for its place in the training, and remove what is older than the last but one.

    `run` says which run this is: a checkpoint of another spec or other images is refused when it is loaded.
    """
    path = folder / f"checkpoint-{state['epoch']:05d}-{state['step']:07d}.pt"
    content = io.BytesIO()  # torch and safetensors report a full disk by errors that cannot be told from others
    torch.save({"version": VERSION, "run": run, "state": state}, content)
    write(path, content.getbuffer(), fix=RESUME)
    for old in own_checkpoints(folder)[KEPT:]:
        old.unlink()
    return path


def own_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder, newest first."""
    return sorted(folder.glob("checkpoint-*.pt"), reverse=True)


def load_checkpoint(path: Path, run: dict[str, str]) -> dict[str, Any]:
    """Read a checkpoint into CPU tensors. Raises CorruptFile if it is damaged or of another run."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, pickle.UnpicklingError) as error:
        raise CorruptFile(f"{path.name} cannot be read: {error}") from error
    if not isinstance(content, dict) or content.get("version") != VERSION:
        raise CorruptFile(f"{path.name} is not a checkpoint of this version")
    if content["run"] != run:
        differing = sorted(key for key in run if content["run"].get(key) != run[key])
        raise CorruptFile(f"{path.name} belongs to another run: {', '.join(differing)} differ")
    state: dict[str, Any] = content["state"]
    return state


def first_usable(
    paths: Sequence[Path], run: dict[str, str]
) -> tuple[Path | None, dict[str, Any] | None, list[tuple[Path, str]]]:
    """The first checkpoint that can be read, its state, and those passed over with the reason why."""
    refused: list[tuple[Path, str]] = []
    for path in paths:
        try:
            return path, load_checkpoint(path, run), refused
        except CorruptFile as error:
            refused.append((path, error.detail))
    return None, None, refused
