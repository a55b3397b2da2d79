"""Stored specs keep the meaning of the version that wrote them; new ones have that of the present version."""

from typing import Any

import pytest

from models.spec.parse import load_spec, parse_spec
from models.spec.presets import experiment_presets

SMALLER: dict[str, Any] = {"model": {"name": "resnet18", "input_size": 16}, "dataset": {"train_limit": 20}}


def test_a_spec_that_is_written_now_is_of_the_present_version() -> None:
    assert parse_spec(SMALLER).spec_version == 2
    assert not parse_spec(SMALLER).is_version_1


@pytest.mark.parametrize("preset", sorted(experiment_presets()))
def test_presets_are_of_the_present_version(preset: str) -> None:
    assert parse_spec({"preset": preset}).spec_version == 2


def test_a_stored_spec_keeps_its_version_however_it_comes_back() -> None:
    stored = parse_spec({**SMALLER, "spec_version": 1}).as_json()
    assert load_spec(stored).is_version_1
    assert parse_spec(stored).is_version_1
    assert parse_spec({**stored, "epochs": 3}).is_version_1
    del stored["spec_version"]
    assert load_spec(stored).is_version_1


def test_the_digest_of_a_first_version_is_what_its_checkpoints_say() -> None:
    """Written down by version 1: a checkpoint of another digest would be refused when such a run is resumed."""
    found = parse_spec({"model": "baseline", "spec_version": 1})
    assert found.spec_version == 1
    assert found.digest() == "5b70424202924c30bad7c98ab93bfb26ac82c6afa38ca21422efb39c473415de"


def test_a_field_that_came_later_changes_the_digest_where_it_is_set() -> None:
    plain = {"model": "baseline", "spec_version": 1}
    later: list[dict[str, Any]] = [
        {"dataset": {"split": "stratified"}},
        {"fine_tuning": {"freeze": ["features.*"]}},
        {"sampler": "balanced"},
    ]
    digests = {parse_spec({**plain, **wanted}).digest() for wanted in ({}, *later)}
    assert len(digests) == 4
