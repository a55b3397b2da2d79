"""The networks that `model.name` can be, for GET /architectures."""

from dataclasses import asdict
from typing import Any

from models.networks.family import families


def architectures() -> list[dict[str, Any]]:
    """Every network that a spec can name, presets included, as plain data."""
    entries = [entry for family in families() for entry in family.architectures()]
    return [{**asdict(entry), "pretrained_sources": list(entry.pretrained_sources)} for entry in entries]
