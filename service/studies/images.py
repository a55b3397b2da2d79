"""The sizes of a study row's dataset."""

from models.data.info import DatasetInfo
from models.data.splits import split_counts
from models.spec.experiment import ExperimentSpec
from models.studies.images import RowImages


def images_of(spec: ExperimentSpec, info: DatasetInfo) -> RowImages:
    """The sizes of a spec's dataset before any limit: training, validation and test images."""
    train, val = split_counts(spec.dataset, info)
    return RowImages(title=info.title, train=train, val=val, test=info.num_test, classes=info.num_classes)
