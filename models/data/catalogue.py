"""The registry of built-in datasets, by name; each has a module of its own."""

from models.data import cifar10, cifar100, emnist, fashion_mnist, flowers102, gtsrb, mnist, pets, stl10, svhn
from models.data.fetching import Recipe
from models.data.info import DatasetInfo
from models.errors import FieldError, SpecError
from models.spec.explain import nearest_word

RECIPES = (
    cifar10.RECIPE,
    fashion_mnist.RECIPE,
    cifar100.RECIPE,
    mnist.RECIPE,
    mnist.KMNIST_RECIPE,
    *emnist.RECIPES,
    svhn.RECIPE,
    stl10.RECIPE,
    gtsrb.RECIPE,
    pets.RECIPE,
    flowers102.RECIPE,
)
DATASETS: dict[str, Recipe] = {recipe.info.name: recipe for recipe in RECIPES}
"""Every dataset by its name."""


def list_datasets() -> list[DatasetInfo]:
    """Every dataset that can be named in a spec."""
    return [recipe.info for recipe in DATASETS.values()]


def get_dataset(name: str) -> DatasetInfo:
    """The description of a built-in dataset. Raises SpecError that names `dataset.name` and a name that is alike."""
    return get_recipe(name).info


def get_recipe(name: str) -> Recipe:
    """How a dataset is fetched and checked. Raises SpecError for an unknown name, as `get_dataset` does."""
    if name in DATASETS:
        return DATASETS[name]
    nearest = nearest_word(name, DATASETS)
    error: FieldError = {
        "field": "dataset.name",
        "message": f"there is no dataset {name[:100]!r}",
        "value": name[:100],
        "choices": list(DATASETS),
    }
    if nearest is not None:
        error["nearest"] = nearest
    raise SpecError([error], fix="GET /api/v1/datasets lists what can be named")
