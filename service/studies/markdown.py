"""Renders a report as one Markdown file, with pictures as data: URLs."""

import base64
import re

from models.studies.blocks import Block, Bullets, Figure, Report, Table, Text
from service.studies.figures import Draw

SPECIAL = str.maketrans({letter: f"\\{letter}" for letter in "\\`*_{}[]<>#|&~"})
LIST_MARK = re.compile(r"^(?:([0-9]{1,9})([.)])|([+-]))(?= |$)")
"""What would begin a list where a text begins with it, as the row "+ augmentation" does."""


def render_markdown(report: Report, draw: Draw) -> bytes:
    """The file; the same report and figures give the same bytes."""
    parts = [f"# {_text(report.title)}"]
    if report.question:
        parts.append(f"*{_text(report.question)}*")
    parts += ["## In short", _bullets(report.summary)]
    for section in report.sections:
        parts.append(f"## {_text(section.title)}")
        if section.question:
            parts.append(f"*{_text(section.question)}*")
        parts += [_block(block, draw) for block in section.blocks]
    return ("\n\n".join(part for part in parts if part) + "\n").encode()


def _block(block: Block, draw: Draw) -> str:
    match block:
        case Text():
            return f"**{_text(block.words)}**" if block.strong else _text(block.words)
        case Bullets():
            return _bullets(block.items)
        case Table():
            return _table(block)
        case Figure():
            drawn = draw(block)
            if drawn is None:
                return f"{_text(block.caption)} There is nothing to show."
            data = base64.b64encode(drawn.data).decode()
            return f"![{_text(block.caption)}](data:{drawn.media_type};base64,{data})\n\n{_text(block.caption)}"


def _bullets(items: tuple[str, ...]) -> str:
    return "\n".join(f"- {_text(item)}" for item in items)


def _table(table: Table) -> str:
    rule = [":--" if name in table.texts or name == table.columns[0] else "--:" for name in table.columns]
    lines = [table.columns, tuple(rule), *table.rows]
    text = "\n".join(
        f"| {' | '.join(cell if index == 1 else _text(cell) for cell in line)} |" for index, line in enumerate(lines)
    )
    return f"{text}\n\n{_text(table.note)}" if table.note else text


def _text(words: str) -> str:
    text = " ".join(words.translate(SPECIAL).split())
    return LIST_MARK.sub(lambda found: f"{found[1] or ''}\\{found[2] or found[3]}", text)
