"""Checks of a sentence's form, whatever it says: for properties over every message that is made."""

import re

LONG_NUMBER = re.compile(r"(?<![\w.])\d{7,}|\d\.\d{7,}|\d{5,}\.\d")
"""Digits that nobody reads: seven and more without separators, seven and more after the point, both at once."""
MANY_FOR_ONE = re.compile(r"(?<![\d.,:/*-])1 (?!is |was |has |gives |looks )([a-z]+ )?(\w*[^s\W]s)\b(?! of)")
ONE_FOR_MANY = re.compile(
    r"(?<![\d.,])(?:[02-9]|\d{2,}) (epoch|step|image|filter|layer|unit|class|batch|kernel|phase|entry|minute|pixel)\b"
)
SINGULARS = {"is", "was", "has", "this", "its", "class", "gives", "as", "less", "loss", "bias", "pass", "focus", "axis"}


def faults_of(text: str) -> list[str]:
    """Double spaces, space before a stop, unfilled places, absurd numbers, and plurals that do not fit their number."""
    found = []
    if "  " in text or text != text.strip() or re.search(r" [.,;:](?!\.)", text) or ".." in text.replace("...", ""):
        found.append("spaces or stops")
    if re.search(r"\b(nan|inf|None)\b|[{}](?!\")|\be[+]", text) and '{"' not in text:
        found.append("a value that is none")
    found += [f"number {match.group()}" for match in LONG_NUMBER.finditer(text)]
    found += [
        f"plural {match.group()}" for match in MANY_FOR_ONE.finditer(text) if match.group(2).lower() not in SINGULARS
    ]
    found += [f"singular {match.group()}" for match in ONE_FOR_MANY.finditer(text)]
    return found
