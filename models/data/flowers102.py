"""Oxford's 102 flowers: torchvision's download, resized to 224 pixels."""

from pathlib import Path
from typing import Any

from models.data.fetching import Recipe
from models.data.info import DatasetInfo
from models.data.sources import Arrays, ReportBytes, Source
from models.data.torchvision_sets import (
    RemoteFile,
    dataset_class,
    decode_all,
    download_files,
    open_splits,
    test_part,
)

NAMES = (
    "pink primrose; hard-leaved pocket orchid; canterbury bells; sweet pea; english marigold; tiger lily; moon "
    "orchid; bird of paradise; monkshood; globe thistle; snapdragon; colt's foot; king protea; spear thistle; "
    "yellow iris; globe-flower; purple coneflower; peruvian lily; balloon flower; giant white arum lily; fire "
    "lily; pincushion flower; fritillary; red ginger; grape hyacinth; corn poppy; prince of wales feathers; "
    "stemless gentian; artichoke; sweet william; carnation; garden phlox; love in the mist; mexican aster; alpine "
    "sea holly; ruby-lipped cattleya; cape flower; great masterwort; siam tulip; lenten rose; barbeton daisy; "
    "daffodil; sword lily; poinsettia; bolero deep blue; wallflower; marigold; buttercup; oxeye daisy; common "
    "dandelion; petunia; wild pansy; primula; sunflower; pelargonium; bishop of llandaff; gaura; geranium; orange "
    "dahlia; pink-yellow dahlia; cautleya spicata; japanese anemone; black-eyed susan; silverbush; californian "
    "poppy; osteospermum; spring crocus; bearded iris; windflower; tree poppy; gazania; azalea; water lily; rose; "
    "thorn apple; morning glory; passion flower; lotus; toad lily; anthurium; frangipani; clematis; hibiscus; "
    "columbine; desert-rose; tree mallow; magnolia; cyclamen; watercress; canna lily; hippeastrum; bee balm; ball "
    "moss; foxglove; bougainvillea; camellia; mallow; mexican petunia; bromelia; blanket flower; trumpet creeper; "
    "blackberry lily"
)
NUM_OWN_TRAIN = 1_020
"""Training images; as many validation images follow them."""

FLOWERS102 = DatasetInfo(
    name="flowers102",
    title="Oxford 102 Flowers",
    num_classes=102,
    class_names=tuple(NAMES.split("; ")),
    channels=3,
    size=224,
    num_train=2 * NUM_OWN_TRAIN,
    num_test=6_149,
    mean=(0.43, 0.38, 0.30),
    std=(0.29, 0.25, 0.27),
    source="Nilsback and Zisserman 2008, Automated Flower Classification over a Large Number of Classes",
    licence="no licence stated; for research",
    has_up_and_down=False,
    can_be_mirrored=True,
    class_counts=(20,) * 102,
    num_validation=NUM_OWN_TRAIN,
)


def fetch(work: Path, arrays: Arrays, progress: ReportBytes, cls: Any = None) -> None:
    """The images and two MATLAB files, read by torchvision, which needs scipy for it.

    The training images are followed by those of the published validation split.
    """
    cls = cls or dataset_class("Flowers102")
    files = [
        RemoteFile([cls._download_url_prefix + name], f"flowers-102/{name}", md5)
        for name, md5 in cls._file_dict.values()
    ]
    download_files(files, work, progress)
    train, validation, test = open_splits(
        lambda split: cls(work, split=split, download=True), ("train", "val", "test"), progress
    )
    half = len(arrays.train_images) // 2
    decode_all(train, (arrays.train_images[:half], arrays.train_labels[:half]), progress)
    decode_all(validation, (arrays.train_images[half:], arrays.train_labels[half:]), progress)
    decode_all(test, test_part(arrays), progress)


RECIPE = Recipe(
    info=FLOWERS102, sources=(Source("torchvision's download (www.robots.ox.ac.uk)", fetch),), measured=True
)
