"""Draws a report's figures, each as the bytes of an SVG or PNG."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sqlalchemy.orm import Session

from models.errors import EpochalError
from models.store import artifacts
from models.store.states import ArtifactKind
from models.studies.blocks import Figure, best_epoch
from models.studies.results import StudyResult
from service.kernels import tiles
from service.kernels.draw import render_kernels
from service.kernels.read import map_tensors
from service.measurements.draw import render_lr_test
from service.studies.draw import panels_of, render_differences, render_panels
from service.studies.robustness import render_robustness
from service.studies.search_draw import render_search


@dataclass(frozen=True, slots=True)
class Drawn:
    """A drawn figure."""

    data: bytes
    media_type: str


Draw = Callable[[Figure], Drawn | None]


def figure_drawer(result: StudyResult, kernel_files: dict[str, Path]) -> Draw:
    """A function that draws figures of a study; it returns None for a figure without data."""

    def draw(figure: Figure) -> Drawn | None:
        rows = [row for key in figure.rows if (row := result.row(key)) is not None]
        match figure.kind:
            case "panels":
                sections = result.spec.sections
                published = sections[figure.section].published_curves if figure.section is not None else {}
                return Drawn(render_panels(panels_of(rows, published), title=result.title, format="svg"), SVG)
            case "differences":
                return Drawn(
                    render_differences(
                        rows, fair=[row.key for row in rows if result.is_fair(row)], title=result.title, format="svg"
                    ),
                    SVG,
                )
            case "search":
                found = result.search
                return None if found is None else Drawn(render_search(found, title=result.title, format="svg"), SVG)
            case "kernels":
                return _kernels(result, figure.rows[0], kernel_files)
            case "learning-rate-test":
                test = result.lr_tests.get(figure.rows[0])
                return None if test is None else Drawn(render_lr_test(test, title=figure.caption, format="svg"), SVG)
            case "robustness":
                return Drawn(render_robustness(result.robustness, title=result.title, format="svg"), SVG)

    return draw


SVG, PNG = "image/svg+xml", "image/png"


def find_kernel_files(session: Session, result: StudyResult, experiments_dir: Path) -> dict[str, Path]:
    """The files of the first layer's kernels, by row, of the runs that pictures show."""
    found = {}
    for row in result.rows:
        if row.first is not None:
            record = artifacts.find(session, row.first.experiment_id, ArtifactKind.KERNELS)
            if record is not None:
                try:
                    found[row.key] = record.file(experiments_dir)
                except EpochalError:
                    continue
    return found


def _kernels(result: StudyResult, key: str, files: dict[str, Path]) -> Drawn | None:
    """The kernels of the first, the best and the last kept epoch, one below the other in one picture each."""
    row, path = result.row(key), files.get(key)
    if row is None or path is None:
        return None
    try:
        tensors = map_tensors(path)
        kept = tensors["kernels"]
        epochs = [int(epoch) for epoch in tensors.get("epochs", np.arange(1, len(kept) + 1))]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    best = best_epoch(row.first) or epochs[-1]
    shown = sorted({0, min(range(len(epochs)), key=lambda i: abs(epochs[i] - best)), len(epochs) - 1})
    stacked = np.concatenate([np.asarray(kept[index], np.float32) for index in shown])
    if stacked.shape[1] not in (1, 3) or len(stacked) > MOST_KERNELS:
        stacked = np.asarray(kept[shown[-1]], np.float32)[:MOST_KERNELS]
        shown = shown[-1:]
    tiles.check_kernels(stacked)
    columns = _columns(len(stacked) // len(shown))
    numbers = ", ".join(str(epochs[index]) for index in shown)
    title = f"{row.title}, epochs {numbers}, one after the other" if len(shown) > 1 else f"{row.title}, epoch {numbers}"
    return Drawn(render_kernels(stacked, title=title, columns=columns), PNG)


def _columns(count: int) -> int:
    """Kernels side by side, 16 at most, so that no line holds those of two epochs with `count` kernels each."""
    return max(columns for columns in range(1, min(count, 16) + 1) if count % columns == 0)


MOST_KERNELS = 200
