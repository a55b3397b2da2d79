"""The sizes of a study row's dataset."""

from models.data.info import DatasetInfo
from models.data.splits import num_validation
from models.spec.experiment import ExperimentSpec
from models.studies.images import RowImages


def images_of(spec: ExperimentSpec, info: DatasetInfo) -> RowImages:
    """The sizes of a spec's dataset before any limit: training, validation and test images."""
    val = num_validation(info.num_train, spec.dataset.val_fraction)
    return RowImages(
        title=info.title, train=info.num_train - val, val=val, test=info.num_test, classes=info.num_classes
    )
