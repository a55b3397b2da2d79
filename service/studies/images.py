"""The sizes of a study row's dataset."""

from models.data.info import DatasetInfo
from models.data.splits import kind_of_split, split_counts
from models.spec.experiment import ExperimentSpec
from models.studies.images import RowImages


def images_of(spec: ExperimentSpec, info: DatasetInfo) -> RowImages:
    """The dataset of a spec as it splits it: training, validation and test images before any limit."""
    train, val = split_counts(spec.dataset, info)
    return RowImages(
        title=info.title,
        train=train,
        val=val,
        test=info.num_test,
        classes=info.num_classes,
        split=kind_of_split(spec.dataset, given=info.num_validation is not None, grouped=info.num_groups is not None),
    )
