"""Layouts exported by annotation tools: Label Studio's JSON, CVAT's XML, Teachable Machine's project file."""

import json
from typing import Any
from xml.etree import ElementTree as ET

from models.data.importing.layouts.finder import Finder
from models.data.importing.layouts.layout import Candidate, Files, Layout, sample
from models.data.importing.layouts.table_files import decode_text
from models.data.importing.names import Split, shown, split_of, suffix_of
from models.text import plural

TEACHABLE_MACHINE_MARK = "-!-"
"""Between class and number in the names that Teachable Machine gives its samples: `Class 1-!-0.jpg`."""


# Teachable Machine


def teachable_machine(files: Files) -> Layout | None:
    """A project file (.tm): all samples in one folder, each with its class in its file name."""
    marked = [one for one in files.images if TEACHABLE_MACHINE_MARK in one.parts[-1]]
    if not marked or len(marked) < len(files.images):
        return None
    layout = Layout("a project of Teachable Machine", [])
    for one in marked:
        label, _, number = one.parts[-1].rpartition(TEACHABLE_MACHINE_MARK)
        if label and number.partition(".")[0].isdigit():
            layout.samples.append(sample(one.number, label))
        else:
            layout.left_out.append((one.name, "has no class in its name"))
    return layout if layout.samples else None


# Label Studio


def label_studio(files: Files) -> Layout | None:
    """A JSON export of a project with choices (JSON or JSON-MIN); images by their upload's name or their path."""
    for other in files.others:
        if suffix_of(other.name) != ".json":
            continue
        tasks = _tasks(files.read(other.number))
        if tasks is not None and (layout := _from_tasks(tasks, other, files)) is not None:
            return layout
    return None


def _tasks(data: bytes) -> list[dict[str, Any]] | None:
    try:
        read = json.loads(decode_text(data))
    except (ValueError, RecursionError):
        return None
    if not isinstance(read, list) or not read or not all(isinstance(task, dict) for task in read):
        return None
    return read


def _from_tasks(tasks: list[dict[str, Any]], other: Candidate, files: Files) -> Layout | None:
    finder = Finder(files.images)
    layout = Layout("Label Studio's JSON export", [])
    named, missing, address_seen = set[int](), 0, False
    for task in tasks:
        address, label, why = _full_task(task) if "annotations" in task else _short_task(task)
        if address is None:
            continue
        address_seen = True
        number = finder.find_address(address)
        if number is None:
            missing += 1
        elif number not in named:
            named.add(number)
            if label:
                layout.samples.append(sample(number, label))
            else:
                layout.left_out.append((files.entries[number].name, why))
    if not address_seen or not layout.samples:
        return None
    if missing:
        layout.warnings.append(
            f"the images of {plural(missing, 'task')} of '{shown(other.name)}' are not in the archive; Label Studio "
            "exports labels only, so add the files"
        )
    left = [one for one in files.images if one.number not in named]
    layout.left_out += [(one.name, f"no task of '{shown(other.name)}' names it") for one in left]
    return layout


def _full_task(task: dict[str, Any]) -> tuple[str | None, str, str]:
    """Address, label and, without one, the reason; of the last annotation that was not cancelled."""
    data = task.get("data")
    address = next((v for v in data.values() if _is_address(v)), None) if isinstance(data, dict) else None
    annotations = task.get("annotations")
    for annotation in reversed(annotations if isinstance(annotations, list) else []):
        if not isinstance(annotation, dict) or annotation.get("was_cancelled"):
            continue
        results = annotation.get("result")
        for result in results if isinstance(results, list) else []:
            value = result.get("value") if isinstance(result, dict) else None
            choices = value.get("choices") if isinstance(value, dict) else None
            if isinstance(choices, list) and choices:
                return address, *_one_choice(choices)
    return address, "", "was not labelled"


def _short_task(task: dict[str, Any]) -> tuple[str | None, str, str]:
    """As `_full_task`, of an entry of JSON-MIN: the names of its keys are those of the labelling interface."""
    if not {"annotation_id", "annotator", "lead_time", "choice"} & set(task):
        return None, "", ""
    address = next((v for k, v in task.items() if _is_address(v) and k != "choice"), None)
    choice = task.get("choice")
    if isinstance(choice, dict):
        choice = choice.get("choices")
    return address, *_one_choice(choice if isinstance(choice, list) else [choice] if choice else [])


def _one_choice(choices: list[Any]) -> tuple[str, str]:
    if len(choices) > 1:
        return "", "has several classes: " + ", ".join(shown(str(choice)) for choice in choices[:4])
    return (str(choices[0]), "") if choices else ("", "was not labelled")


def _is_address(value: Any) -> bool:
    return isinstance(value, str) and ("/" in value or "." in value) and len(value) < 2_000


# CVAT


def cvat(files: Files) -> Layout | None:
    """CVAT for images 1.1: annotations.xml with a tag for each image. (Its ImageNet export has class folders.)"""
    for other in files.others:
        if other.parts[-1].casefold() == "annotations.xml":
            layout = _from_xml(files.read(other.number), other, files)
            if layout is not None:
                return layout
    return None


def _from_xml(data: bytes, other: Candidate, files: Files) -> Layout | None:
    if b"<!DOCTYPE" in data or b"<!ENTITY" in data:
        return None  # CVAT writes none; entities can grow without bound
    finder = Finder(files.images)
    layout = Layout("CVAT's annotations.xml", [])
    named, missing = set[int](), 0
    try:
        for image in ET.fromstring(data).iter("image"):  # noqa: S314  (no entities, see above)
            number = finder.find(image.get("name", ""), other.parts[:-1])
            tags = list(dict.fromkeys(tag.get("label", "") for tag in image.findall("tag")))
            if number is None:
                missing += 1
                continue
            named.add(number)
            if len(tags) == 1 and tags[0]:
                layout.samples.append(sample(number, tags[0], _split(image.get("subset", ""))))
            else:
                why = "has several tags: " + ", ".join(map(shown, tags[:4])) if tags else "has no tag"
                layout.left_out.append((files.entries[number].name, f"{why} in '{shown(other.name)}'"))
    except ET.ParseError:
        return None
    if not layout.samples:
        return None
    if missing:
        layout.warnings.append(
            f"{plural(missing, 'image')} of '{shown(other.name)}' are not in the archive; export it with images"
        )
    left = [one for one in files.images if one.number not in named]
    layout.left_out += [(one.name, f"'{shown(other.name)}' does not name it") for one in left]
    return layout


def _split(name: str) -> Split | None:
    return split_of(name) if name else None
