"""Advice of errors can be followed: with every `nearest` applied the spec is valid."""

import copy
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.errors import SpecError
from models.spec.advice import put
from models.spec.changes import with_changes
from models.spec.kinds import PARTS
from models.spec.parse import parse_spec
from tests.models.spec.strategies import JSON, SPECS

SLOW = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
WRONG = JSON | st.sampled_from([-1, 0, 1, 2.5, 1e9, -1e9, 10**6, "x", "0.1", "true", True, None, [], {}, [0, 0], [-1]])


def refusal(body: Any) -> list[dict[str, Any]]:
    """The entries that a body is refused with; none for a valid one."""
    try:
        parse_spec(body)
    except SpecError as error:
        return error.errors
    return []


@SLOW
@given(SPECS, st.data())
def test_following_the_advice_on_one_wrong_value_gives_a_valid_spec(body: dict[str, Any], data: st.DataObject) -> None:
    whole = parse_spec(body).as_json()
    places = [(whole, key) for key in whole if key != "model"]
    places += [(part, key) for part in whole.values() if isinstance(part, dict) for key in part]
    home, key = data.draw(st.sampled_from(places))
    home[key] = data.draw(WRONG)
    entries = refusal(whole)
    advised = [entry for entry in entries if "nearest" in entry and "choices" not in entry]
    unknown = [entry for entry in entries if "unknown key" in entry["message"] or " has no '" in entry["message"]]
    if not advised or unknown or len(advised) < len(entries):
        return
    mended = copy.deepcopy(whole)
    for entry in advised:
        put(mended, entry["field"], entry["nearest"])
    assert refusal(mended) == [], [entry["nearest"] for entry in advised]


@pytest.mark.parametrize(
    "body",
    [
        {"epochs": 0, "lr_scheduler": {"name": "cosine", "warmup_epochs": 3}},
        {"optimizer": {"name": "sgd", "nesterov": True, "momentum": -1}},
        {"augmentation": {"mixup_alpha": 0.2}, "class_weights": "balancd"},
        {"early_stopping": {"monitor": "val_los", "mode": "max"}},
    ],
    ids=range(4),
)
def test_a_nearest_value_that_breaks_another_rule_is_not_advised(body: dict[str, Any]) -> None:
    whole = {"model": "baseline", **body}
    entries = refusal(whole)
    assert entries
    if all("nearest" in entry for entry in entries):
        for entry in entries:
            put(whole, entry["field"], entry["nearest"])
        assert refusal(whole) == []


def test_independent_mistakes_keep_their_advice() -> None:
    entries = refusal({"model": "baseline", "epochs": 0, "batch_size": 0, "seed": -1, "zzz": 1})
    assert {entry["field"]: entry.get("nearest") for entry in entries} == {
        "epochs": 1,
        "batch_size": 1,
        "seed": 0,
        "zzz": None,
    }


@pytest.mark.parametrize("part", PARTS)
def test_the_nearest_kind_is_one_that_has_the_other_keys(part: str) -> None:
    keys = {"optimizer": {"nesterov": True}, "lr_scheduler": {"eta_min": 1e-4}}[part]
    [entry] = refusal({"model": "baseline", part: {"name": "zzz", **keys}})
    assert refusal({"model": "baseline", part: {"name": entry["nearest"], **keys}}) == []


def test_changes_are_made_at_their_places_and_nothing_else_is_changed() -> None:
    spec = parse_spec({"model": "baseline", "ema_decay": 0.9, "lr_scheduler": {"name": "step", "step_size": 3}})
    changed = with_changes(spec, {"ema_decay": None, "lr_scheduler.step_size": 5, "model.blocks.0.pool": None})
    body = changed.as_json()
    assert body["ema_decay"] is None
    assert body["lr_scheduler"]["step_size"] == 5
    assert body["model"]["blocks"][0]["pool"] is None
    assert with_changes(changed, {"ema_decay": 0.9, "lr_scheduler.step_size": 3, "model.blocks.0.pool": 2}) == spec
    with pytest.raises(SpecError, match="ema_decay"):
        with_changes(spec, {"ema_decay": 2})
