"""Commands that do the same to several experiments, studies, datasets or models."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import typer

from service.cli.output import Mode, errors, print_json, shown

Named = TypeVar("Named", int, str)


def each(items: Sequence[Named], do: Callable[[Named], dict[str, Any]], *, noun: str, key: str = "id") -> None:
    """Apply an action to each item, in order and once; a refused one is reported and the rest continue.

    With --json the answers are printed: that of one item by itself, those of several as a list in which `key` names a
    refused item.
    """
    from service.cli.client import Problem

    if len(items) == 1:
        done = do(items[0])
        if Mode.json:
            print_json(done)
        return
    results: list[dict[str, Any]] = []
    refused: list[Named] = []
    for item in dict.fromkeys(items):
        try:
            results.append(do(item))
        except Problem as problem:
            refused.append(item)
            results.append({key: item, "error": problem.document})
            errors.print(f"[bold red]{noun} {shown(item)}[/]: {shown(problem.detail)}")
    if Mode.json:
        print_json({"items": results})
    if refused:
        errors.print(f"{len(refused)} of {len(results)} were refused: {', '.join(map(shown, refused))}")
        raise typer.Exit(1)
