"""Renders a report as one self-contained HTML page: styles and pictures inline, no script."""

import base64
import html
from collections.abc import Callable
from pathlib import Path

from models.studies.blocks import Block, Bullets, Figure, Report, Table, Text
from service.studies.figures import Draw

STYLE = (Path(__file__).parent / "report.css").read_text(encoding="utf-8")
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"


def render_html(report: Report, draw: Draw) -> bytes:
    """The page; the same report and figures give the same bytes."""
    number = _counter()
    parts = [
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
        f"<title>{_text(report.title)}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>",
        f"<header><h1>{_text(report.title)}</h1>",
        f'<p class="question">{_text(report.question)}</p>' if report.question else "",
        "</header>",
        '<section class="summary"><h2>In short</h2>',
        f"<ul>{''.join(f'<li>{_text(words)}</li>' for words in report.summary)}</ul></section>",
    ]
    for section in report.sections:
        parts.append(f"<section>\n<h2>{_text(section.title)}</h2>")
        if section.question:
            parts.append(f'<p class="question">{_text(section.question)}</p>')
        parts += [_block(block, draw, number) for block in section.blocks]
        parts.append("</section>")
    parts.append("</main>\n</body>\n</html>\n")
    return "\n".join(part for part in parts if part).encode()


def _counter() -> Callable[[], int]:
    count = 0

    def following() -> int:
        nonlocal count
        count += 1
        return count

    return following


def _block(block: Block, draw: Draw, number: Callable[[], int]) -> str:
    match block:
        case Text():
            return f"<p{' class=strong' if block.strong else ''}>{_text(block.words)}</p>"
        case Bullets():
            return f"<ul>{''.join(f'<li>{_text(item)}</li>' for item in block.items)}</ul>" if block.items else ""
        case Table():
            return _table(block)
        case Figure():
            return _figure(block, draw, number)


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col"{_kind(table, name)}>{_text(name)}</th>' for name in table.columns)
    body = []
    for row in table.rows:
        first, *rest = row
        cells = f'<th scope="row">{_text(first)}</th>'
        cells += "".join(
            f"<td{_kind(table, name)}>{_text(cell)}</td>" for name, cell in zip(table.columns[1:], rest, strict=True)
        )
        body.append(f"<tr>{cells}</tr>")
    note = f'<p class="note">{_text(table.note)}</p>' if table.note else ""
    rows = "\n".join(body)
    return f'<div class="table"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody></table></div>{note}'


def _kind(table: Table, name: str) -> str:
    return "" if name in table.texts or name == table.columns[0] else ' class="figure"'


def _figure(figure: Figure, draw: Draw, number: Callable[[], int]) -> str:
    drawn = draw(figure)
    if drawn is None:
        return f'<p class="note">{_text(figure.caption)} There is nothing to show.</p>'
    source = f"data:{drawn.media_type};base64,{base64.b64encode(drawn.data).decode()}"
    caption = f"<b>Figure {number()}.</b> {_text(figure.caption)}"
    return (
        f'<figure class="{figure.kind}"><img alt="{_text(figure.caption)}" src="{source}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _text(words: str) -> str:
    return html.escape(words)
