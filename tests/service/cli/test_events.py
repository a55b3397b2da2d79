"""Parsing of server-sent events."""

from service.cli.client import Event, parse_events


def test_events_are_read_with_their_kind_data_and_id() -> None:
    lines = ["id: 7", "event: epoch", 'data: {"epoch": 1}', "", "event: progress", 'data: {"step": 3}', ""]
    assert list(parse_events(iter(lines))) == [Event("epoch", {"epoch": 1}, "7"), Event("progress", {"step": 3}, None)]


def test_comments_keep_alives_and_a_cut_off_event_are_passed_over() -> None:
    lines = [": keep-alive", "", "retry: 1000", "", "event: end", "data:{}", "", "event: epoch", 'data: {"epoch":']
    assert list(parse_events(iter(lines))) == [Event("end", {}, None)]


def test_data_on_several_lines_is_one_document() -> None:
    assert list(parse_events(iter(['data: {"a":', "data: 1}", ""]))) == [Event("message", {"a": 1}, None)]
