"""Plans the arrays of a dataset from its layout: each image's split, label and row."""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.data.grouping import find_groups
from models.data.importing.layouts.layout import Layout, ordered
from models.data.importing.names import Split, shown
from models.data.importing.options import ImportOptions
from models.data.importing.source import Entry
from models.errors import ArchiveError
from models.text import plural

MAX_CLASSES = 50_000
"""The most classes of a dataset; the largest in use have half as many."""
TEST_FRACTION = 0.2
"""The part of the images that becomes the test split if the files give no split."""


@dataclass(frozen=True)
class Plan:
    """All images in row order: the training split, including given validation images, then the test split."""

    class_names: tuple[str, ...]
    entries: npt.NDArray[np.int64]
    """Each image's number in the source's listing."""
    labels: npt.NDArray[np.int64]
    num_train: int
    validation: npt.NDArray[np.bool_]
    """For each training image, whether the files put it into a validation split."""
    groups: tuple[str | None, ...]
    given: tuple[Split | None, ...]
    warnings: tuple[str, ...]

    def digest(self, entries: Sequence[Entry], options: ImportOptions) -> str:
        """Identifies an import: the same files and options give the same rows, so that it can be resumed."""
        digest = hashlib.sha256(options.model_dump_json(exclude={"threads"}).encode())
        digest.update(json.dumps([self.class_names, self.num_train, self.groups]).encode())
        for array in (self.entries, self.labels, self.validation):
            digest.update(array.tobytes())
        for number in self.entries:
            digest.update(f"{entries[number].name}\0{entries[number].size}\n".encode())
        return digest.hexdigest()


def make_plan(layout: Layout, entries: Sequence[Entry], options: ImportOptions) -> Plan:
    """Decide splits and order. Raises ArchiveError for fewer than two classes."""
    counts = Counter(one.label for one in layout.samples)
    names = ordered(set(counts)) if layout.class_names is None else layout.class_names
    empty = [name for name in (*names, *layout.empty_classes) if not counts[name]]
    names = tuple(name for name in names if counts[name])
    if len(names) < 2:
        raise _one_class(names, counts, empty, layout.left_out)
    if len(names) > MAX_CLASSES:
        raise ArchiveError(
            f"there are {plural(len(names), 'class', 'classes')} for {plural(len(layout.samples), 'image')}, and at "
            f"most {MAX_CLASSES:,} are taken: '{shown(names[0])}', '{shown(names[1])}' and so on",
            fix="see whether the column of labels holds something else, such as names or captions",
        )
    number_of = {name: number for number, name in enumerate(names)}
    samples = sorted(layout.samples, key=lambda one: (number_of[one.label], entries[one.entry].name))
    labels = np.array([number_of[one.label] for one in samples], dtype=np.int64)
    groups = [one.group if options.group_column is not None else None for one in samples]
    warnings = list(layout.warnings)
    if options.group is not None and options.group_column is None:
        groups = find_groups([entries[one.entry].name for one in samples], options.group)
    if options.group is not None:
        warnings += _check_groups(groups, options.group)
    given = [one.split for one in samples]
    is_test, more = split_test(labels, given, groups, options)
    order = np.argsort(is_test, kind="stable")
    num_train = int(len(samples) - is_test.sum())
    if len(set(labels[~is_test].tolist())) < 2:
        raise ArchiveError(
            f"the training split has images of fewer than two classes, of {len(names)} in all",
            fix="put images of each class into the training split, or give no splits: then they are made here",
        )
    return Plan(
        class_names=names,
        entries=np.array([samples[place].entry for place in order], dtype=np.int64),
        labels=labels[order],
        num_train=num_train,
        validation=np.array([given[place] is Split.VALIDATION for place in order[:num_train]], dtype=np.bool_),
        groups=tuple(groups[place] for place in order),
        given=tuple(given[place] for place in order),
        warnings=(*warnings, *more, *_counts_worth_a_word(counts, empty)),
    )


def split_test(
    labels: npt.NDArray[np.int64], given: Sequence[Split | None], groups: Sequence[str | None], options: ImportOptions
) -> tuple[npt.NDArray[np.bool_], list[str]]:
    """For each image whether it is in the test split, and the warnings about that split."""
    is_test = np.array([split is Split.TEST for split in given], dtype=np.bool_)
    if is_test.any():
        return is_test, []
    fraction = options.test_fraction
    if fraction is None:
        fraction = 0.0 if any(given) else TEST_FRACTION
        if any(given):
            return is_test, ["the files give no test split, so there is none; test_fraction makes one"]
    free = np.flatnonzero([split is not Split.VALIDATION for split in given])
    chosen = stratified(labels[free], [groups[int(place)] for place in free], fraction, options.seed)
    is_test[free[chosen]] = True
    return is_test, []


def stratified(
    labels: npt.NDArray[np.int64], groups: Sequence[str | None], fraction: float, seed: int
) -> npt.NDArray[np.int64]:
    """A stratified random part of the images, made of whole groups, as indices in ascending order.

    Every class keeps at least one image outside. An image without a group is a group of its own. Groups are drawn in
    random order and taken as long as they bring the part's class counts closer to the wanted ones.
    """
    if fraction <= 0 or not len(labels):
        return np.zeros(0, dtype=np.int64)
    members: dict[str | int, list[int]] = defaultdict(list)
    for place, group in enumerate(groups):
        members[place if group is None else group].append(place)
    # NumPy promises never to change the raw stream of a bit generator; see models.data.splits
    units = list(members.values())
    order = np.argsort(np.random.PCG64(seed).random_raw(len(units)), kind="stable")
    counts = np.bincount(labels)
    wanted = np.minimum(np.round(fraction * counts), np.maximum(counts - 1, 0))
    taken = np.zeros(len(counts))
    chosen: list[int] = []
    for unit in order:
        places = units[int(unit)]
        if len(places) == 1:
            label = labels[places[0]]
            if taken[label] + 0.5 < wanted[label]:
                taken[label] += 1
                chosen += places
            continue
        classes, numbers = np.unique(labels[places], return_counts=True)
        missing = wanted[classes] - taken[classes]
        closer = np.abs(missing - numbers).sum() < np.abs(missing).sum()
        if closer and (taken[classes] + numbers < counts[classes]).all():
            taken[classes] += numbers
            chosen += places
    return np.sort(np.array(chosen, dtype=np.int64))


def _check_groups(groups: Sequence[str | None], asked: str) -> list[str]:
    without = sum(group is None for group in groups)
    if without == len(groups):
        raise ArchiveError(
            f"no image has a group: {asked!r} is found in no file's path and in no table",
            fix="write it as a regular expression on the path inside the archive, such as '(patient[0-9]+)', or leave "
            "group out",
        )
    warnings = []
    if without:
        have = "has" if without == 1 else "have"
        warnings.append(f"{without:,} of {plural(len(groups), 'image')} {have} no group, so each is a group of its own")
    if len(set(groups)) == 1:
        warnings.append(
            f"all images are of one group, '{shown(str(groups[0]))}', so that no split can keep groups together"
        )
    if len(set(groups) - {None}) == len(groups):
        warnings.append("every image is a group of its own, so that group changes nothing")
    return warnings


def _one_class(
    names: Sequence[str], counts: Counter[str], empty: Sequence[str], left_out: Sequence[tuple[str, str]]
) -> ArchiveError:
    fix = "put the images of each class into a folder with the class's name, side by side"
    without = f"; {_listed(empty)} {'has' if len(empty) == 1 else 'have'} no images" if empty else ""
    if not names:
        example = f": '{shown(left_out[0][0])}' {left_out[0][1]}" if left_out else ""
        return ArchiveError(f"no image has a class{without}{example}", fix=fix)
    number = plural(counts[names[0]], "image")
    return ArchiveError(
        f"there is one class only, '{shown(names[0])}', with {number}{without}; a classifier needs two at least",
        fix=fix,
        classes=[shown(names[0])],
    )


def _counts_worth_a_word(counts: Counter[str], empty: Sequence[str]) -> list[str]:
    warnings = []
    if empty:
        warnings.append(f"no images, so not among the classes: {_listed(empty)}")
    single = sorted(name for name, count in counts.items() if count < 2)
    if single:
        warnings.append(
            f"fewer than 2 images, so that one split has none: {_listed(single)}; add images or leave these out"
        )
    spelled: dict[str, list[str]] = defaultdict(list)
    for name in counts:
        spelled[" ".join(name.casefold().split())].append(name)
    if twins := sorted(name for names in spelled.values() if len(names) > 1 for name in names):
        warnings.append(f"{_listed(twins)} differ in capitals or blanks alone, and each is a class of its own")
    return warnings


def _listed(names: Sequence[str], most: int = 20) -> str:
    first = ", ".join(f"'{shown(name)}'" for name in names[:most])
    return first + (f" and {len(names) - most:,} more" if len(names) > most else "")
