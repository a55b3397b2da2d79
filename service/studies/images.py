"""How many images a row of a study has."""

from models.data.info import DatasetInfo
from models.data.splits import num_validation
from models.spec.experiment import ExperimentSpec
from models.studies.images import RowImages


def images_of(spec: ExperimentSpec, info: DatasetInfo) -> RowImages:
    """How many images a spec's dataset has on each side of its split."""
    val = num_validation(info.num_train, spec.dataset.val_fraction)
    return RowImages(
        title=info.title, train=info.num_train - val, val=val, test=info.num_test, classes=info.num_classes
    )
