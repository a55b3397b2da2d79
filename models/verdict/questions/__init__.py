"""Questions that a verdict answers one by one, a module each: `report(case)` returns findings.

`models.verdict.judge` asks every module of this folder, in the order of their names. Questions that need each other's
answers (is a run that collapsed still improving?) are called by name there.
"""

import pkgutil
from functools import lru_cache
from importlib import import_module
from typing import Protocol, cast

from models.findings import Finding
from models.verdict.case import Case


class Question(Protocol):
    """A module of this folder."""

    def report(self, case: Case) -> list[Finding]:
        """What there is to say about a history; nothing is an empty list."""


def answer_questions(case: Case) -> list[Finding]:
    """The findings of every question."""
    return [finding for question in _questions() for finding in question.report(case)]


@lru_cache(maxsize=1)
def _questions() -> list[Question]:
    names = [module.name for module in pkgutil.iter_modules(__path__)]
    return [cast(Question, import_module(f"{__name__}.{name}")) for name in names]
