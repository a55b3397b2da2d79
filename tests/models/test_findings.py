"""Every code that a finding or a warning can have is explained to users, with its line in docs/verdicts.md."""

from pathlib import Path

import pytest

from models.findings import FindingCode, WarningCode

PAGE = Path(__file__).parents[2] / "docs" / "verdicts.md"


def explained() -> set[str]:
    """The codes in the first column of the page's tables."""
    rows = [line.split("|")[1] for line in PAGE.read_text().splitlines() if line.startswith("|")]
    return {code.strip() for row in rows for code in row.split(",")}


@pytest.mark.parametrize("codes", [FindingCode, WarningCode])
def test_every_code_is_explained(codes: type[FindingCode] | type[WarningCode]) -> None:
    assert {code.value for code in codes} - explained() == set()
