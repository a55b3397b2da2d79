"""Checkpoints: one file with everything needed to resume training, written atomically."""

import io
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from models.errors import CorruptFile
from models.files import write
from worker.training.threads import START

VERSION = 2
"""Version of the layout of `state`. Files of version 1, of release 0.1.0, are read as well."""
RESUME = "make room on the disk of the data directory, or make it writable, then resume the experiment"
"""The `fix` of errors about a run's file that cannot be written."""
KEPT = 2
"""Checkpoints that are kept: the newest, and the one before it in case the newest cannot be read."""


def save_checkpoint(folder: Path, state: dict[str, Any], run: dict[str, str]) -> Path:
    """Write a checkpoint, named for its place in the training, and remove what is older than the last but one.

    `run` identifies the run: digests of the spec, of the spec without its number of epochs, and of the images. Loading
    refuses a checkpoint of another spec or other images.
    """
    path = folder / f"checkpoint-{state['epoch']:05d}-{state['step']:07d}.pt"
    content = io.BytesIO()  # torch and safetensors report a full disk by errors that do not differ from others
    torch.save({"version": VERSION, "run": run, "state": state}, content)
    write(path, content.getbuffer(), fix=RESUME)
    for old in own_checkpoints(folder)[KEPT:]:
        old.unlink()
    return path


def own_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder, newest first."""
    return sorted(folder.glob("checkpoint-*.pt"), reverse=True)


def load_checkpoint(path: Path, run: dict[str, str]) -> dict[str, Any]:
    """Read a checkpoint's state into CPU tensors, in the present layout.

    One of a run that differs in its number of epochs alone is read too: training continues from its end, and early
    stopping counts its patience from 0 again. Raises CorruptFile if it is damaged or of another run.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, pickle.UnpicklingError) as error:
        raise CorruptFile(f"{path.name} cannot be read: {error}") from error
    if not isinstance(content, dict) or content.get("version") not in (1, VERSION):
        raise CorruptFile(f"{path.name} is not a checkpoint of this version")
    saved_by: dict[str, str] = content["run"]
    differing = [key for key in ("dataset", "spec") if saved_by.get(key) != run.get(key)]
    continued = differing == ["spec"] and saved_by.get("course") == run.get("course") is not None
    if differing and not continued:
        raise CorruptFile(f"{path.name} belongs to another run: {', '.join(differing)} differ")
    state: dict[str, Any] = content["state"]
    if content["version"] == 1:
        state = _from_version_1(state)
    if continued:
        state["early_stopping"] = {**state["early_stopping"], "waited": 0, "should_stop": False}
    return state


class Checkpoint(NamedTuple):
    """A checkpoint read from a file."""

    path: Path
    state: dict[str, Any]


def first_usable(paths: Sequence[Path], run: dict[str, str]) -> tuple[Checkpoint | None, list[tuple[Path, str]]]:
    """The first readable checkpoint, and the unreadable ones before it with the reasons."""
    refused: list[tuple[Path, str]] = []
    for path in paths:
        try:
            return Checkpoint(path, load_checkpoint(path, run)), refused
        except CorruptFile as error:
            refused.append((path, error.detail))
    return None, refused


def _from_version_1(old: dict[str, Any]) -> dict[str, Any]:
    """Convert a state saved by release 0.1.0 or later to the present layout.

    Three parts have two forms there: the number of threads was one for the whole run at first, the kernels were a list
    with every epoch's, and the plateau's factor was one for all groups of parameters.
    """
    schedule, tally, judgement, kernels = old["schedule"], old["tally"], old["judgement"], old["kernels"]
    if isinstance(kernels, list):
        kernels = {"kernels": dict(enumerate(kernels, 1)), "stride": 1, "best": 0}
    groups = old["optimizer"]["param_groups"]
    threads = [{**START._asdict(), "threads": old["threads"]}] if "threads" in old else old["thread_changes"]
    return {
        **{name: old[name] for name in ("epoch", "step", "seconds", "network", "optimizer", "averaged", "random")},
        "schedule": {
            "times_lowered": old["times_lowered"],
            "plateau_factors": schedule.get("plateau_factors", [schedule.get("plateau_factor", 1.0)] * len(groups)),
            "plateau_best": schedule["plateau_best"],
            "plateau_waited": schedule["plateau_waited"],
        },
        "mixed_precision": old["arithmetic"],
        "early_stopping": {**judgement["stopping"], "should_stop": judgement["stop"]},
        "best": {name: judgement["best"][name] for name in ("epoch", "val_accuracy")},
        "meters": {
            **{name: tally[name] for name in ("loss", "correct", "images", "steps")},
            "grad_norm": tally["norm"],
            "logits": tally["_outputs"],
            "labels": tally["_labels"],
            "mixed": tally["_shares"],
            "grad_norms": tally["_norms"],
        },
        "kernels": kernels,
        "history": {"epochs": old["report"]["history"], "divergences": old["report"]["divergences"]},
        "thread_changes": threads,
    }
