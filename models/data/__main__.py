"""`python -m models.data fetch cifar10`: datasets fetched ahead of time, with a progress bar; `--list` lists them."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, SpinnerColumn, TextColumn
from rich.table import Column, Table

from models.data.catalogue import get_dataset, list_datasets
from models.data.dataset import fetch_dataset, is_fetched
from models.data.info import DatasetInfo
from models.errors import EpochalError, InvalidSettings
from models.settings import exit_for, read_settings


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit code is 0, or 1 when something could not be fetched."""
    parser = argparse.ArgumentParser(prog="python -m models.data", description="Datasets that experiments train on.")
    parser.add_argument("--list", action="store_true", help="list the datasets and whether each is fetched")
    parser.add_argument("--cache-dir", type=Path, help="where datasets are kept (default: EPOCHAL_CACHE_DIR)")
    commands = parser.add_subparsers(dest="command")
    fetch = commands.add_parser("fetch", help="fetch datasets that are not there yet")
    fetch.add_argument("names", nargs="+", metavar="NAME", help="a dataset, such as cifar10")
    options = parser.parse_args(arguments)
    try:
        cache_dir = read_settings(cache_dir=options.cache_dir).cache_dir
    except InvalidSettings as error:
        exit_for(error)
    if options.command is None:
        _print_list(cache_dir)
        return 0
    try:
        for info in [get_dataset(name) for name in options.names]:
            _fetch(info, cache_dir)
    except EpochalError as error:
        sys.stderr.write(f"{error.title}. {error.detail}\n{error.fix or ''}\n")
        return 1
    return 0


def _print_list(cache_dir: Path) -> None:
    table = Table(Column("name", no_wrap=True), "title", "images", "size", "classes", "fetched")
    for info in list_datasets():
        size = f"{info.channels}x{info.size}x{info.size}"
        fetched = "yes" if is_fetched(info, cache_dir) else "no"
        table.add_row(info.name, info.title, f"{info.num_train}+{info.num_test}", size, str(info.num_classes), fetched)
    Console().print(table)


def _fetch(info: DatasetInfo, cache_dir: Path) -> None:
    if is_fetched(info, cache_dir):
        print(f"{info.title} is in {cache_dir}")
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:

        def progress(label: str, done_bytes: int, total_bytes: int | None) -> None:
            description = f"{info.title}: {label}"
            if not bar.tasks or bar.tasks[-1].description != description:
                _finish_last(bar)
                bar.add_task(description, total=total_bytes)
            bar.update(bar.tasks[-1].id, completed=done_bytes)

        folder = fetch_dataset(info, cache_dir, progress)
        _finish_last(bar)
    print(f"{info.title} is in {folder}")


def _finish_last(bar: Progress) -> None:
    """A step that said nothing of its size ends as a full bar."""
    if bar.tasks:
        last = bar.tasks[-1]
        bar.update(last.id, total=last.total or 1, completed=last.total or 1)


if __name__ == "__main__":
    sys.exit(main())
