"""Networks of the package timm, where that is installed (the extra epochal[timm]), with a head for a dataset's classes.

timm knows of each network how it is built and what its weights were trained with (`pretrained_cfg`). Its list has well
over a thousand names, so nothing of them is kept here.
"""

import difflib
import importlib.util
from functools import lru_cache
from pathlib import Path
from typing import Any

from torch import nn

from models.data.info import DatasetInfo
from models.errors import DataUnavailable, FieldError, SpecError
from models.networks.architecture import Architecture
from models.networks.family import SMALLEST_INPUT, Family, Normalisation, Rates
from models.networks.zoo import PRETRAINED_ADAPTIVE_RATES, PRETRAINED_SGD_RATES
from models.spec.model import TimmSpec

PREFIX = "timm/"
USEFUL_SIZE = 64
INSTALL = "pip install timm (the extra epochal[timm]) where the API and the workers run"


def is_installed() -> bool:
    """Whether timm can be imported here."""
    return importlib.util.find_spec("timm") is not None


def timm_module() -> Any:
    """timm, imported after torchvision has been made importable; it takes some seconds. Raises SpecError without it."""
    if not is_installed():
        raise SpecError(
            [{"field": "model.name", "message": "names a network of timm, which is not installed here"}], fix=INSTALL
        )
    import models.torchvision_compat  # noqa: F401  (timm imports torchvision)

    return __import__("timm")


@lru_cache(maxsize=1)
def timm_names() -> dict[str, bool]:
    """The names of all networks, without the prefix, and whether there are weights for each."""
    timm = timm_module()
    pretrained = {name.partition(".")[0] for name in timm.list_models(pretrained=True)}
    return {name: name in pretrained for name in timm.list_models()}


@lru_cache(maxsize=256)
def _known(name: str) -> tuple[str, Any]:
    """timm's own name of a network, which may have the tag of its weights after a dot, and its configuration."""
    timm = timm_module()
    own = name.removeprefix(PREFIX)
    if not timm.is_model(own):
        nearest = difflib.get_close_matches(own, timm_names(), n=1, cutoff=0.4)
        entry: FieldError = {"field": "model.name", "message": f"timm has no network {own!r}", "value": name}
        raise SpecError(
            [{**entry, "nearest": PREFIX + nearest[0]} if nearest else entry],
            fix="GET /api/v1/architectures?family=timm lists them",
        )
    config = timm.get_pretrained_cfg(own) or timm.get_pretrained_cfg(own.partition(".")[0])
    if config is None:
        raise SpecError([{"field": "model.name", "message": f"timm does not say what {own!r} takes", "value": name}])
    return own, config


class TimmFamily(Family[TimmSpec]):
    """timm's networks: convolutions, transformers and what lies between."""

    is_large = True

    def build(self, model: TimmSpec, *, num_classes: int, in_channels: int, size: int, cache_dir: Path) -> nn.Module:
        """Build it by timm.create_model, which replaces the head and adapts the first layer to one channel.

        Raises SpecError for a name that timm does not have, DataUnavailable for weights that cannot be fetched.
        """
        timm = timm_module()
        own, config = _known(model.name)
        options: dict[str, Any] = {"num_classes": num_classes, "in_chans": in_channels}
        if config.fixed_input_size and size != config.input_size[-1]:
            options["img_size"] = size
        network: nn.Module = timm.create_model(own, pretrained=False, **options)
        if model.pretrained and not next(network.parameters()).is_meta:
            _load_weights(network, own, cache_dir)
        return network

    def architectures(self) -> list[Architecture]:
        """None in the list that comes without asking: `timm_architectures` lists them."""
        return []

    def normalisation(self, model: TimmSpec, info: DatasetInfo) -> Normalisation:
        """The channels, mean and deviation of its weights; the dataset's own without weights."""
        _, config = _known(model.name)
        if not model.pretrained:
            return super().normalisation(model, info)
        return Normalisation(config.input_size[0], tuple(config.mean), tuple(config.std))

    def input_size(self, model: TimmSpec, info: DatasetInfo) -> int:
        """That of its weights, for a pretrained network and for one that fits a single size."""
        _, config = _known(model.name)
        own = int(config.input_size[-1])
        return model.input_size or (own if model.pretrained or config.fixed_input_size else info.size)

    def fits_one_size(self, model: TimmSpec) -> bool:
        """As timm says."""
        return bool(_known(model.name)[1].fixed_input_size)

    def useful_size(self, model: TimmSpec) -> int:
        """Most of these networks divide the side of their input by 32."""
        return USEFUL_SIZE

    def check_size(self, model: TimmSpec, *, num_classes: int, in_channels: int, size: int) -> None:
        """Which sizes a network takes is found by running it on the meta device, as describing it does anyway."""
        from models.networks.inspection import inspect_network  # which imports families

        own = int(_known(model.name)[1].input_size[-1])
        try:
            inspect_network(model, num_classes=num_classes, in_channels=in_channels, size=size)
        except SpecError:
            raise
        except Exception as error:
            text = (
                f"{model.name} cannot be built for images of {size} pixels: {str(error)[:200] or type(error).__name__}"
            )
            entry: FieldError = {"field": "model.input_size", "message": text, "value": model.input_size}
            if size != own:
                entry["nearest"] = max(SMALLEST_INPUT, min(512, own))
            raise SpecError([entry]) from error

    def is_normed(self, model: TimmSpec) -> bool:
        """All but a few old ones are."""
        return True

    def usual_sgd_rates(self, model: TimmSpec) -> Rates:
        """Lower for pretrained weights."""
        return PRETRAINED_SGD_RATES if model.pretrained else super().usual_sgd_rates(model)

    def usual_adaptive_rates(self, model: TimmSpec) -> Rates:
        """Lower for pretrained weights."""
        return PRETRAINED_ADAPTIVE_RATES if model.pretrained else super().usual_adaptive_rates(model)


def timm_architectures() -> list[Architecture]:
    """Every network that timm has, without building any. Raises SpecError where timm is not installed."""
    return [
        Architecture(PREFIX + name, name, None, SMALLEST_INPUT, USEFUL_SIZE, pretrained, "timm", ("timm",) * pretrained)
        for name, pretrained in timm_names().items()
    ]


def weights_file(own: str, cache_dir: Path) -> Path:
    """Where timm's weights of a network are looked for: a state dict with timm's names, as safetensors."""
    return cache_dir / "weights" / f"timm-{own}.safetensors"


def _load_weights(network: Any, own: str, cache_dir: Path) -> None:
    """Load timm's weights into everything but the head: from the cache, else from where timm has them.

    Raises DataUnavailable, with the file to provide, when they cannot be fetched.
    """
    from timm.models import load_pretrained

    file = weights_file(own, cache_dir)
    config = dict(network.pretrained_cfg.items()) if hasattr(network.pretrained_cfg, "items") else {}
    if file.is_file():
        config |= {"file": str(file), "hf_hub_id": None, "url": None}
    try:
        load_pretrained(
            network, pretrained_cfg=config, num_classes=network.num_classes, in_chans=config["input_size"][0],
            cache_dir=str(file.parent),
        )  # fmt: skip
    except Exception as error:
        raise DataUnavailable(
            f"timm's weights of {own} could not be loaded: {str(error)[:300] or type(error).__name__}",
            fix=f"let this machine reach huggingface.co (pip install huggingface_hub), put model.safetensors of "
            f"{config.get('hf_hub_id') or 'timm/' + own} into {file}, or set model.pretrained to false",
            network=PREFIX + own,
        ) from error


FAMILY = TimmFamily()
