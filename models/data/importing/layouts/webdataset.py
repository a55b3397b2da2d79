"""The WebDataset layout: the files of a sample share their name up to the first dot (000001.jpg, 000001.cls)."""

import json
import re
from collections.abc import Sequence

from models.data.importing.layouts.layout import Candidate, Files, Layout, sample
from models.data.importing.layouts.table_files import decode_text
from models.data.importing.names import Split, class_name, split_of
from models.errors import ArchiveError

LABELS = ("cls", "label", "cls.txt", "label.txt", "txt", "json")
"""Suffixes of the file with the label, the most reliable first."""
KEYS = ("label_name", "class_name", "label", "cls", "class", "category", "target")
"""In a sample's JSON: a name rather than a number, where both are there."""
ONLY_TEXTS = "images with a text of their label beside each"
MIN_LABELLED = 0.5
LONGEST_LABEL = 200
MAX_CAPTIONS = 0.5


def recognise(files: Files) -> Layout | None:
    """Label images by the label file beside each; None if few images have one."""
    beside: dict[str, dict[str, Candidate]] = {}
    for other in files.others:
        key, ending = _key(other)
        if ending in LABELS:
            beside.setdefault(key, {})[ending] = other
    if not beside:
        return None
    keys = [_key(one)[0] for one in files.images]
    if sum(key in beside for key in keys) < MIN_LABELLED * len(keys):
        return None
    layout = Layout("WebDataset", [])
    for one, key in zip(files.images, keys, strict=True):
        label = _label(beside.get(key, {}), files)
        if label is None:
            layout.left_out.append((one.name, "has no file of its label beside it"))
        else:
            split = next((found for part in one.parts[:-1] if (found := _split_in(part))), None)
            layout.samples.append(sample(one.number, label, split))
    if not layout.samples:
        return None
    distinct = {one.label for one in layout.samples}
    only_texts = all(set(one) == {"txt"} for one in beside.values())
    if only_texts and len(distinct) > MAX_CAPTIONS * len(layout.samples):
        return None  # captions, a different one for each image
    if only_texts:
        layout.name = ONLY_TEXTS
    layout.class_names = _names(files, [one.label for one in layout.samples])
    if layout.class_names is not None:
        names = layout.class_names
        layout.samples = [sample(one.entry, names[int(one.label)], one.split) for one in layout.samples]
    return layout


def _split_in(part: str) -> Split | None:
    """The split that a folder's or a shard's name says: `train`, `imagenet-val-000012`."""
    words = (part, *re.split(r"[-_.\s]+", part))
    return next((found for word in words if (found := split_of(word))), None)


def _key(one: Candidate) -> tuple[str, str]:
    """Split `a/b.seg.png` into ("a/b", "seg.png"). Dots in folder names do not count."""
    stem, _, ending = one.parts[-1].partition(".")
    return "/".join((*one.parts[:-1], stem)), ending.casefold()


def _label(beside: dict[str, Candidate], files: Files) -> str | None:
    for ending in LABELS:
        if ending not in beside:
            continue
        try:
            text = decode_text(files.read(beside[ending].number)).strip()
        except ArchiveError:
            continue
        if ending == "json":
            try:
                record = json.loads(text)
            except (ValueError, RecursionError):
                continue
            found = next((record[key] for key in KEYS if key in record), None) if isinstance(record, dict) else None
            text = str(found) if isinstance(found, str | int) else ""
        if text and len(text) <= LONGEST_LABEL and "\n" not in text:
            return text
    return None


def _names(files: Files, labels: Sequence[str]) -> tuple[str, ...] | None:
    """The class names from a list beside the samples (classes.txt), for numeric labels."""
    if not all(label.isdecimal() for label in labels):
        return None
    for other in files.others:
        if other.parts[-1].casefold() in ("classes.txt", "classnames.txt", "class_names.txt", "labels.txt"):
            names = [class_name(line) for line in decode_text(files.read(other.number)).splitlines() if line.strip()]
            if len(names) > max(map(int, labels)) and len(set(names)) == len(names):
                return tuple(names)
    return None
