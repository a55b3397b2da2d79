"""A field in the wrong part of a spec gets an error that names the right part, for every field and part."""

from typing import Any

import pytest

from models.errors import SpecError
from models.spec.kinds import KINDS_OF
from models.spec.owners import MEANINGS, WORDS, owners
from models.spec.parse import parse_spec

CNN = {"name": "cnn", "blocks": [{"convs": [{"channels": 4}]}], "head": {"hidden": [8]}}
PLACES: list[tuple[tuple[str | int, ...], dict[str, Any]]] = [
    ((), {}),
    (("dataset",), {"dataset": {}}),
    (("augmentation",), {"augmentation": {}}),
    (("augmentation", "color_jitter"), {"augmentation": {"color_jitter": {}}}),
    (("fine_tuning",), {"fine_tuning": {}}),
    (("early_stopping",), {"early_stopping": {}}),
    (("progressive_resizing", 0), {"progressive_resizing": [{"from_epoch": 1, "input_size": 32}]}),
    (("model",), {"model": CNN}),
    (("model", "blocks", 0), {"model": CNN}),
    (("model", "blocks", 0, "convs", 0), {"model": CNN}),
    (("model", "head"), {"model": CNN}),
    (("model",), {"model": {"name": "resnet18"}}),
    (("model",), {"model": {"name": "fast_resnet"}}),
    *(
        ((part,), {part: {"name": kind, **({"milestones": [1]} if kind == "multistep" else {})}})
        for part in ("optimizer", "lr_scheduler")
        for kind in KINDS_OF[part]
    ),
]
"""Every part of a spec, and a spec that has it."""


def written_at(place: tuple[str | int, ...], body: dict[str, Any], key: str) -> dict[str, Any]:
    """A copy of the body in which `key` stands at the place."""

    def copied(part: Any, rest: tuple[str | int, ...]) -> Any:
        if not rest:
            return {**part, key: 1}
        step = rest[0]
        if isinstance(step, int):
            return [copied(part[step], rest[1:])]
        return {**part, step: copied(part[step], rest[1:])}

    whole = copied({"model": "baseline", **body}, place)
    assert isinstance(whole, dict)
    return whole


def entry_of(place: tuple[str | int, ...], body: dict[str, Any], key: str) -> dict[str, Any] | None:
    """The entry about a key at a place; None where it is a field there."""
    field = ".".join(map(str, (*place, key)))
    try:
        parse_spec(written_at(place, body, key))
    except SpecError as error:
        about = [entry for entry in error.errors if entry["field"] == field]
        unknown = [entry for entry in about if "unknown key" in entry["message"] or " has no '" in entry["message"]]
        return unknown[0] if unknown else None
    return None


@pytest.mark.parametrize(("place", "body"), PLACES, ids=[f"{number}" for number in range(len(PLACES))])
def test_every_field_at_every_wrong_level_is_told_its_owner(place: tuple[str | int, ...], body: dict[str, Any]) -> None:
    told = 0
    for field, parts in owners().items():
        entry = entry_of(place, body, field)
        if entry is None:
            continue
        told += 1
        homes = {".".join(map(str, part.path)) for part in parts}
        if "nearest" in entry:
            home, _, name = f".{entry['nearest']}".rpartition(".")
            assert name == field, "the field itself, and no word that is spelled like it"
            assert home.strip(".") in homes
            assert (home.strip(".") or "top level") in entry["message"]
        else:
            kinds = {kind for part in parts for kind in part.kinds}
            assert ".".join(map(str, place)) in homes, "only another kind of the same part has it"
            assert any(kind in entry["message"].rpartition(";")[2] for kind in kinds)
    assert told > 40


@pytest.mark.parametrize("word", sorted(MEANINGS))
def test_what_other_tools_call_a_field_is_that_field(word: str) -> None:
    field = MEANINGS[word]
    assert field in owners(), "a word for a field that there is"
    entry = entry_of((), {}, word)
    if entry is not None:  # learning_rate, wd and scheduler are taken as they stand; words of ours mean what they say
        assert str(entry["nearest"]).rpartition(".")[2] == (word if word in owners() else field)


def test_no_word_of_another_tool_stands_for_two_fields() -> None:
    words = [word for line in WORDS.values() for word in line.split()]
    assert sorted(words) == sorted(set(words))


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("batchSize", "batch_size"),
        ("BATCH_SIZE", "batch_size"),
        ("batch-size", "batch_size"),
        ("valFraction", "dataset.val_fraction"),
        ("val_fracton", "dataset.val_fraction"),
        ("warmup_epoch", "lr_scheduler.warmup_epochs"),
        ("epoch", "epochs"),
        ("optimiser", "optimizer"),
    ],
)
def test_another_spelling_is_told_the_fields_own(key: str, nearest: str) -> None:
    entry = entry_of((), {}, key)
    assert entry is not None
    assert entry["nearest"] == nearest


@pytest.mark.parametrize(
    ("place", "body", "key", "nearest"),
    [
        ((), {"early_stopping": {}}, "patience", "early_stopping.patience"),
        ((), {"lr_scheduler": {"name": "plateau"}}, "patience", "lr_scheduler.patience"),
        (("model", "blocks", 0), {"model": CNN}, "channels", "model.blocks.0.convs.0.channels"),
        (("lr_scheduler",), {"lr_scheduler": {"name": "cosine"}}, "learning_rate", "optimizer.lr"),
        ((), {"model": {"name": "resnet18"}}, "input_size", "model.input_size"),
    ],
)
def test_of_several_owners_the_one_that_the_spec_has_comes_first(
    place: tuple[str | int, ...], body: dict[str, Any], key: str, nearest: str
) -> None:
    entry = entry_of(place, body, key)
    assert entry is not None
    assert entry["nearest"] == nearest


def test_the_message_shows_what_to_write() -> None:
    entry = entry_of((), {}, "eta_min")
    assert entry is not None
    assert entry["message"].endswith('it belongs to lr_scheduler: {"lr_scheduler": {"name": "cosine", "eta_min": ...}}')
    entry = entry_of((), {}, "from_epoch")
    assert entry is not None
    assert entry["message"].endswith('{"progressive_resizing": [{"from_epoch": ...}]}')
