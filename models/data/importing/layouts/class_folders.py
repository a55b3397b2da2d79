"""The layout with one folder per class, optionally with split folders above or below, inside any outer folders."""

import re
from collections import Counter, defaultdict

from models.data.importing.layouts.layout import Candidate, Files, Layout, Sample, sample
from models.data.importing.names import Split, class_name, shown, split_of
from models.text import plural

Folder = tuple[str, ...]
TEACHABLE_MACHINE = re.compile(r"(.+)-samples(?: \([0-9]+\))?")
"""The folder of a class's samples; browsers number downloads of the same name."""


def recognise(files: Files) -> Layout | None:
    """Label images by the folder they are in. None if no folder is a class."""
    root = common_root(files.images)
    depth = len(root)
    inside = [one for one in files.images if len(one.parts) > depth + 1]
    loose = [one for one in files.images if len(one.parts) <= depth + 1]
    if not inside:
        return None
    first = _folders_at(inside, depth)
    splits = {name for name in first if split_of(name)}
    # A folder of a split holds folders; one that holds images itself, among other classes, is a class named "train".
    below = {one.parts[depth] for one in inside if len(one.parts) > depth + 2}
    # Beside one with classes, a folder of a split without any holds images to be predicted for.
    if splits and (splits <= below or (splits == set(first) and below)):
        layout = _splits_first(files, root, inside, splits)
    elif splits == set(first):
        return None  # loose images in train/ and test/: their classes are said elsewhere, or nowhere
    else:
        layout = _classes_first(files, root, inside)
    layout.left_out += [(one.name, "is not in a class folder") for one in loose]
    _without_samples(layout)
    return layout


def _without_samples(layout: Layout) -> None:
    """Name the classes of what Teachable Machine downloads for each class as it does: `Class 1-samples (2).zip`."""
    found = {one.label: TEACHABLE_MACHINE.fullmatch(one.label) for one in layout.samples}
    if found and all(found.values()):
        names = {label: match[1] for label, match in found.items() if match}
        layout.samples = [Sample(one.entry, names[one.label], one.split, one.group) for one in layout.samples]


def common_root(images: list[Candidate]) -> Folder:
    """The outer folders to ignore: each is the only folder with images at its level, and contains folders of images.

    A split folder is never one of them.
    """
    root: Folder = ()
    while True:
        depth = len(root)
        names = {one.parts[depth] for one in images if len(one.parts) > depth + 1 and one.parts[:depth] == root}
        if len(names) != 1:
            return root
        (only,) = names
        inner = (*root, only)
        if split_of(only) or not any(len(one.parts) > depth + 2 and one.parts[: depth + 1] == inner for one in images):
            return root
        root = inner


def _splits_first(files: Files, root: Folder, inside: list[Candidate], splits: set[str]) -> Layout:
    """train/cat/1.png."""
    depth = len(root)
    layout = Layout("class folders inside split folders", [])
    around = _folders_around({name: [one for one in inside if one.parts[depth] == name] for name in splits}, root)
    for one in inside:
        split = split_of(one.parts[depth]) if one.parts[depth] in splits else None
        classes_at = len(around.get(one.parts[depth], ()))
        if split is None:
            layout.left_out.append((one.name, f"'{shown(one.parts[depth])}' is not a split like {_list(splits)}"))
        elif len(one.parts) <= classes_at + 1:
            layout.left_out.append((one.name, "is not in a class folder"))
        else:
            layout.samples.append(sample(one.number, one.parts[classes_at], split))
    known = {one.label for one in layout.samples}
    for folder in files.folders:
        parts = tuple(folder.split("/"))
        if parts[:-1] in around.values():
            _note_empty(layout, parts[-1], known)
    _note_deeper(layout, inside, max(map(len, around.values())))
    return layout


def _folders_around(images: dict[str, list[Candidate]], root: Folder) -> dict[str, Folder]:
    """For each split's folder, by its name, the one in which its classes are: itself, or the only folder in it.

    As train/images/cat beside test/images/cat, where these hold folders alone; or train.zip with a folder train in it.
    """
    depth = len(root) + 1
    below = {
        name: {one.parts[depth] for one in inside if len(one.parts) > depth + 1} for name, inside in images.items()
    }
    loose = any(len(one.parts) <= depth + 2 for inside in images.values() for one in inside)
    if not loose and all(len(folders) == 1 for folders in below.values()):
        return {name: (*root, name, *folders) for name, folders in below.items()}
    around: dict[str, Folder] = {}
    for name, folders in below.items():
        again = {folder for folder in folders if split_of(folder) is split_of(name)}
        elsewhere = any(again & others for other, others in below.items() if other != name)  # then it is a class
        around[name] = (
            (*root, name, *folders) if folders == again and len(again) == 1 and not elsewhere else (*root, name)
        )
    return around


def _classes_first(files: Files, root: Folder, inside: list[Candidate]) -> Layout:
    """cat/1.png, or cat/train/1.png where every class has folders of splits and nothing else."""
    depth = len(root)
    seconds = {one.parts[depth + 1] for one in inside if len(one.parts) > depth + 2}
    all_deep = all(len(one.parts) > depth + 2 for one in inside)
    splits_below = bool(seconds) and all_deep and all(split_of(name) for name in seconds)
    layout = Layout("split folders inside class folders" if splits_below else "class folders", [])
    for one in inside:
        split = split_of(one.parts[depth + 1]) if splits_below else None
        layout.samples.append(sample(one.number, one.parts[depth], split))
    known = {one.label for one in layout.samples}
    for folder in files.folders:
        parts = tuple(folder.split("/"))
        if len(parts) == depth + 1 and parts[:depth] == root:
            _note_empty(layout, parts[depth], known)
    if not splits_below:
        _note_deeper(layout, inside, depth)
    return layout


def _note_empty(layout: Layout, folder: str, known: set[str]) -> None:
    name = class_name(folder)
    if name not in known and name not in layout.empty_classes:
        layout.empty_classes.append(name)


def _note_deeper(layout: Layout, inside: list[Candidate], depth: int) -> None:
    """Add a warning if folders inside class folders look like classes themselves."""
    deeper: dict[str, Counter[str]] = defaultdict(Counter)
    flat = 0
    for one in inside:
        if len(one.parts) > depth + 2:
            deeper[one.parts[depth]][one.parts[depth + 1]] += 1
        else:
            flat += 1
    if not flat and deeper and max(len(below) for below in deeper.values()) > 1:
        names = [name for below in deeper.values() for name in below]
        layout.warnings.append(
            f"the {plural(len(deeper), 'folder')} {_list(set(deeper))} were taken for the classes, and those inside "
            f"({_list(set(names))}) belong to them; if those are the classes, pack them without the folders around them"
        )


def _folders_at(images: list[Candidate], depth: int) -> Counter[str]:
    return Counter(one.parts[depth] for one in images)


def _list(names: set[str], most: int = 4) -> str:
    first = ", ".join(f"'{shown(name)}'" for name in sorted(names)[:most])
    return first + (f" and {len(names) - most:,} more" if len(names) > most else "")


def merge_only_split(layout: Layout) -> None:
    """Treat a single split that holds all images as no split, so that a test split is made.

    With validation and test images alone, the validation images are those to train on.
    """
    splits = {one.split for one in layout.samples}
    if splits == {Split.VALIDATION, Split.TEST}:
        layout.samples = [
            Sample(one.entry, one.label, None if one.split is Split.VALIDATION else one.split, one.group)
            for one in layout.samples
        ]
        layout.warnings.append("there is no training split, so the images of the validation split are trained on")
    if len(splits) == 1 and splits != {None}:
        (only,) = splits
        layout.samples = [Sample(one.entry, one.label, None, one.group) for one in layout.samples]
        if only is not Split.TRAIN:
            layout.warnings.append(f"all images are of one split, '{only}', so they were split anew")
