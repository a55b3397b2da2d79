"""The rule for names of served models. They are part of addresses, and must differ from an experiment's number."""

import re

from models.errors import InvalidRequest

NAME = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,63}")
RULE = "a model's name has 1 to 64 letters (A to Z), digits, dots, dashes and underscores, and begins with a letter"


def check_name(name: str) -> None:
    """Raise InvalidRequest, with the nearest valid name, unless a model may be called that."""
    if NAME.fullmatch(name):
        return
    nearest = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._").lstrip("0123456789.-_")[:64]
    entry = {"field": "name", "message": RULE, "value": name[:100], **({"nearest": nearest} if nearest else {})}
    fix = f"call it {nearest}" if nearest else "call it my-model, for instance"
    raise InvalidRequest(f"{RULE}; {name[:100]!r} is not of that form", fix=fix, errors=[entry])
