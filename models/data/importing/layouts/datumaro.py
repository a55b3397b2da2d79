"""The layout of Datumaro, which CVAT exports too: a JSON file a subset, its images in images/SUBSET."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from models.data.importing.layouts.finder import Finder
from models.data.importing.layouts.layout import Candidate, Files, Layout, sample
from models.data.importing.layouts.table_files import decode_text
from models.data.importing.names import class_name, shown, split_of, suffix_of
from models.text import plural


def recognise(files: Files) -> Layout | None:
    """Label images by the labels (not the boxes or shapes) of the items in annotations/SUBSET.json."""
    finder = Finder(files.images)
    layout = Layout("Datumaro's annotations", [])
    named, missing = set[int](), 0
    names: dict[str, None] = {}
    for other, document in _documents(files):
        labels = [class_name(str(label.get("name", ""))) for label in document["categories"]["label"]["labels"]]
        names |= dict.fromkeys(labels)
        subset = other.parts[-1].rpartition(".")[0]
        folder = (*other.parts[:-2], "images", subset)
        for item in document["items"]:
            number = _find(finder, item, folder)
            if number is None:
                missing += 1
                continue
            named.add(number)
            found = _labels_of(item, labels)
            if len(found) == 1:
                layout.samples.append(sample(number, found[0], split_of(subset)))
            else:
                why = "has several labels: " + ", ".join(map(shown, found[:4])) if found else "has no label"
                layout.left_out.append((files.entries[number].name, f"{why} in '{shown(other.name)}'"))
    if not layout.samples:
        return None
    if missing:
        layout.warnings.append(
            f"the images of {plural(missing, 'item')} are not in the archive; export it with images (save images)"
        )
    layout.class_names = tuple(names)
    layout.left_out += [
        (one.name, "no item of the annotations names it") for one in files.images if one.number not in named
    ]
    return layout


def _documents(files: Files) -> Iterator[tuple[Candidate, dict[str, Any]]]:
    """The files that are such annotations."""
    for other in files.others:
        if suffix_of(other.name) != ".json":
            continue
        try:
            read = json.loads(decode_text(files.read(other.number)))
        except (ValueError, RecursionError):
            continue
        if isinstance(read, dict) and isinstance(read.get("items"), list) and _has_labels(read.get("categories")):
            items = [item for item in read["items"] if isinstance(item, dict)]
            yield other, {"categories": read["categories"], "items": items}


def _has_labels(categories: Any) -> bool:
    label = categories.get("label") if isinstance(categories, dict) else None
    labels = label.get("labels") if isinstance(label, dict) else None
    return isinstance(labels, list) and all(isinstance(one, dict) for one in labels)


def _find(finder: Finder, item: Mapping[str, Any], folder: tuple[str, ...]) -> int | None:
    image = item.get("image")
    for written in (image.get("path") if isinstance(image, dict) else None, item.get("id")):
        if isinstance(written, str) and written and (found := finder.find(written, folder)) is not None:
            return found
    return None


def _labels_of(item: Mapping[str, Any], labels: list[str]) -> list[str]:
    """The different labels of an item."""
    annotations = item.get("annotations")
    numbers = [
        one.get("label_id")
        for one in (annotations if isinstance(annotations, list) else [])
        if isinstance(one, dict) and one.get("type") == "label"
    ]
    known = [labels[number] for number in numbers if isinstance(number, int) and 0 <= number < len(labels)]
    return list(dict.fromkeys(known))
