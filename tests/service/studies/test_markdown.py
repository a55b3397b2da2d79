"""A report as Markdown, read by a Markdown parser: what is text in the report is text there, whatever it looks like."""

import html

import pytest
from markdown_it import MarkdownIt

from models.studies.blocks import Bullets, Report, Section, Table, Text
from service.studies.markdown import render_markdown

LIKE_MARKDOWN = [
    "+ augmentation is better than 6a",
    "- 3 points",
    "1. the ideal number",
    "2) second",
    "# no heading",
    "> no quote",
    "~~~ no code",
    "`code` and *stars* and __lines__",
    "[link](https://a.b) and ![picture](x)",
    "a | b",
    "&lt;b&gt; &amp; <b>bold</b>",
    "back\\slash and \\*",
    "\u202eright to left",
]


@pytest.mark.parametrize("words", LIKE_MARKDOWN)
def test_text_stays_text(words: str) -> None:
    blocks = (Text(words), Bullets((words,)), Table(("Row", "What"), ((words, words),), texts=("What",)))
    report = Report(words, words, (words,), (Section(words, words, blocks),))
    page = MarkdownIt("commonmark").enable("table").render(render_markdown(report, lambda figure: None).decode())
    shown = html.escape(words, quote=True)
    assert f"<h1>{shown}</h1>" in page
    assert f"<p><em>{shown}</em></p>" in page
    assert f"<h2>{shown}</h2>" in page
    assert f"<p>{shown}</p>" in page
    assert page.count(f"<li>{shown}</li>") == 2
    assert f">{shown}</td>" in page
