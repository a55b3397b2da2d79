"""Numbered cases: which are asked for, and their rows between two marks in a page."""

from pathlib import Path

from benchmarks.rows import make_row, numbers, put_between, rows_between

BEGIN, END = "<!-- begin -->", "<!-- end -->"


def test_numbers_and_ranges_name_cases_that_there_are() -> None:
    assert numbers("1, 5,26-40,5", range(1, 31)) == [1, 5, 26, 27, 28, 29, 30]


def test_rows_of_cases_that_were_not_run_stay(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"above\n{BEGIN}\nold\n| 1 | one | yes |\n| 12 | twelve | no |\n{END}\nbelow\n")
    rows = rows_between(page, BEGIN, END, {2: make_row(2, "a|b\nc", "yes")})
    put_between(page, BEGIN, END, "\n".join(rows.values()))
    assert page.read_text() == (
        f"above\n{BEGIN}\n| 1 | one | yes |\n| 2 | a\\|b c | yes |\n| 12 | twelve | no |\n{END}\nbelow\n"
    )
