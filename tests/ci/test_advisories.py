"""What `make lint` says of known advisories: what could not be checked is never counted as checked."""

import importlib.machinery
import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / ".ci" / "advisories"
PINS = {"jinja2": "3.1.5", "torch": "2.13.0", "werkzeug": "3.1.9"}
KEPT = {
    "complete_until": "2024-10-10",
    "advisories": [
        {"package": "Jinja2", "id": "CVE-2025-27516", "affected": "<3.1.6"},
        {"package": "torch", "id": "CVE-2025-32434", "affected": "<2.6.0"},
    ],
}


@pytest.fixture(scope="module")
def advisories() -> ModuleType:
    loader = importlib.machinery.SourceFileLoader("advisories", str(SCRIPT))
    spec = importlib.util.spec_from_loader("advisories", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def report(*dependencies: dict[str, Any]) -> str:
    return json.dumps({"dependencies": dependencies})


def test_packages_that_were_skipped_are_compared_with_the_kept_list_and_counted_as_skipped(
    advisories: ModuleType,
) -> None:
    text = report(*({"name": name, "skip_reason": "Dependency not found on PyPI"} for name in PINS))
    lines = advisories.judge(PINS, *advisories.answers(text), KEPT)
    assert lines == [
        "FOUND jinja2 3.1.5: CVE-2025-27516, which affects <3.1.6",
        "0 of 3 pinned packages checked against the advisory database, 3 skipped (Dependency not found on PyPI)",
        (
            "the 3 skipped ones were only compared with 2 advisories in .ci/advisories.json, "
            "a list that is complete until 2024-10-10"
        ),
        "1 finding",
    ]


def test_what_the_database_knows_counts_and_the_kept_list_is_for_the_others(advisories: ModuleType) -> None:
    known = {"id": "CVE-1", "fix_versions": ["9.9"]}
    text = report(
        {"name": "Jinja2", "version": "3.1.5", "vulns": []}, {"name": "torch", "version": "2.13.0", "vulns": [known]}
    )
    lines = advisories.judge(PINS, *advisories.answers(text), KEPT)
    assert lines[0] == "FOUND torch 2.13.0: CVE-1, fixed in 9.9"
    assert lines[1] == "2 of 3 pinned packages checked against the advisory database, 1 skipped"
    assert lines[-1] == "1 finding"


def test_a_database_that_does_not_answer_has_checked_nothing(advisories: ModuleType) -> None:
    lines = advisories.judge({"torch": "2.13.0"}, {}, "no answer within 120 s", KEPT)
    assert lines[0].startswith("0 of 1 pinned packages checked")
    assert "no answer within 120 s" in lines[0]
    assert lines[-1] == "0 findings"


def test_the_kept_list_is_dated_and_about_packages_that_are_pinned(advisories: ModuleType) -> None:
    from packaging.specifiers import SpecifierSet

    kept = json.loads(advisories.KEPT.read_text())
    pins = advisories.pinned(advisories.CONSTRAINTS.read_text())
    assert kept["complete_until"]
    for each in kept["advisories"]:
        assert advisories.normal(each["package"]) in pins
        assert SpecifierSet(each["affected"])
