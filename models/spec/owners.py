"""The part that a misplaced field belongs to, and the field that another tool's name stands for.

The table is read off the spec's own classes, so a new field has its owner when it is added.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from functools import lru_cache
from typing import Any, get_args, get_origin

from pydantic import BaseModel

from models.plain import JsonObject
from models.spec.experiment import ExperimentSpec
from models.spec.kinds import KINDS_OF

Path = tuple[int | str, ...]

CLOSE = 0.5
"""Similarity of two words from which one may be a misspelling of the other, where it stands at the right place."""
CLOSE_ELSEWHERE = 0.8
"""The same for a field of another part."""

WORDS = {
    "lr": "learning_rate learningrate initial_lr base_lr lr0 init_lr start_lr eta eta0 step_length",
    "optimizer": "optimiser optim optimizer_name opt",
    "lr_scheduler": "scheduler lr_schedule schedule lrscheduler lr_policy learning_rate_schedule scheduler_name",
    "weight_decay": "wd l2 l2_penalty weightdecay decay l2_regularization",
    "momentum": "mom sgd_momentum",
    "betas": "beta beta1 beta2 adam_betas",
    "eps": "epsilon adam_epsilon",
    "alpha": "rho smoothing_constant",
    "batch_size": "bs batch batchsize train_batch_size per_device_train_batch_size mini_batch_size minibatch",
    "epochs": "epoch n_epochs num_epochs num_train_epochs max_epochs nepochs epoch_count",
    "accumulate_batches": "gradient_accumulation_steps accumulate_grad_batches grad_accum accumulation_steps",
    "clip_grad_norm": "gradient_clip_val clipnorm max_grad_norm grad_clip gradient_clipping clip_grad gradient_clip",
    "label_smoothing": "label_smooth label_smoothing_factor smoothing",
    "class_weights": "class_weight pos_weight loss_weights",
    "seed": "random_seed random_state manual_seed rng_seed",
    "precision": "amp dtype mixed_precision fp16 bf16 half",
    "ema_decay": "ema model_ema_decay ema_beta weight_averaging",
    "test_time_augmentation": "tta",
    "early_stopping": "early_stop earlystopping early_stopper stop_early",
    "on_divergence": "on_nan nan_policy terminate_on_nan",
    "progressive_resizing": "resize_schedule progressive_resize",
    "model": "net network arch architecture backbone model_name",
    "dataset": "data data_set dataset_name",
    "val_fraction": "val_split validation_split validation_fraction val_size valid_pct val_ratio test_size val_percent",
    "split_seed": "data_seed",
    "train_limit": "limit_train max_train_images limit_train_batches train_subset subset n_train max_train_samples",
    "val_limit": "limit_val max_val_images limit_val_batches val_subset n_val max_eval_samples",
    "evaluate_test": "test run_test do_test eval_test test_after_training",
    "input_size": "img_size image_size imgsz resize resolution input_shape img_dim",
    "pretrained": "imagenet use_pretrained from_pretrained",
    "hflip": "flip horizontal_flip random_horizontal_flip fliplr random_flip",
    "vflip": "vertical_flip random_vertical_flip flipud",
    "rotation_degrees": "rotation degrees rotation_range random_rotation rotate",
    "shift_pixels": "shift translate translation width_shift_range",
    "crop_padding": "crop random_crop",
    "cutout_pixels": "cutout cutout_size cutout_length",
    "random_erase": "random_erasing erasing reprob",
    "color_jitter": "colorjitter colour_jitter jitter",
    "mixup_alpha": "mixup mix_up",
    "warmup_epochs": "warmup num_warmup_epochs warm_up warmup_steps num_warmup_steps warmup_ratio",
    "warmup_start_factor": "warmup_factor start_factor",
    "gamma": "lr_decay lr_gamma decay_rate lr_decay_rate",
    "step_size": "lr_step_size decay_epochs step_epochs",
    "milestones": "lr_steps steps decay_steps",
    "eta_min": "lr_min minimum_lr",
    "pct_start": "warmup_pct",
    "freeze_backbone_epochs": "freeze freeze_epochs freeze_backbone freeze_body unfreeze_epoch",
    "backbone_lr_factor": "backbone_lr lr_mult backbone_lr_scale layer_decay",
    "fine_tuning": "finetuning fine_tune finetune",
    "min_delta": "delta tolerance tol",
    "monitor": "metric early_stopping_metric",
    "augmentation": "augment augmentations transforms data_augmentation aug",
    "channels": "filters out_channels num_filters features",
    "kernel_size": "kernel ksize filter_size",
    "stride": "strides",
    "batch_norm": "bn batchnorm use_bn batch_normalization",
    "pool": "pooling max_pool pool_size maxpool",
    "dropout": "drop drop_rate dropout_rate dropout_p",
    "hidden": "units fc dense hidden_sizes hidden_units hidden_size linear hidden_layers",
    "convs": "conv convolutions conv_layers",
    "blocks": "layers stages",
    "head": "classifier",
    "widths": "width base_width",
    "name": "title run_name experiment_name",
    "tags": "tag labels",
}
"""Words of other tools (Keras, Lightning, Hugging Face, timm, fastai, Ultralytics, scikit-learn) for fields of ours."""

MEANINGS = {word: field for field, words in WORDS.items() for word in words.split()}


@dataclass(frozen=True)
class Owner:
    """A part of the spec that has a field of this name."""

    field: str
    path: Path
    """Of the part: () is the top, ("model", "blocks", 0) the first block."""
    kinds: tuple[str, ...]
    """The kinds of `path[0]` that have it; empty where that comes in one kind only."""

    @property
    def place(self) -> str:
        """The field's place as errors write places."""
        return ".".join(map(str, (*self.path, self.field)))

    def fits(self, body: JsonObject) -> bool:
        """Whether the part is of a kind that has the field, as far as the body says."""
        if not self.kinds:
            return True
        part = body.get(str(self.path[0]))
        return isinstance(part, dict) and part.get("name") in self.kinds

    def example(self) -> str:
        """The part and the field as JSON: what to write, the part's kind included."""
        kind = '"name": ..., ' if self.path[0] == "model" else f'"name": "{self.kinds[0]}", ' if self.kinds else ""
        text = f'"{self.field}": ...'
        for depth in range(len(self.path) - 1, -1, -1):
            step, name = self.path[depth], kind if depth == 0 else ""
            if isinstance(step, int):
                text = f"[{{{text}}}]"
            else:
                text = f'"{step}": {text}' if text[0] == "[" else f'"{step}": {{{name}{text}}}'
        return f"{{{text}}}"


def plain_word(key: str) -> str:
    """A key in this spec's spelling: batchSize, batch-size and BATCH_SIZE are batch_size."""
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", key.strip())
    return re.sub(r"[\s\-.]+", "_", snake).lower()


def meant_fields(key: str) -> list[str]:
    """The fields that a key may mean: its own name first, then what other tools call it."""
    words = dict.fromkeys((key, plain_word(key)))
    return list(dict.fromkeys([*words, *(MEANINGS[word] for word in words if word in MEANINGS)]))


@lru_cache(maxsize=1)
def owners() -> dict[str, tuple[Owner, ...]]:
    """Every field of the spec, with every part that has it."""
    found: dict[str, list[Owner]] = {}
    for owner in _walk(ExperimentSpec, (), ()):
        same = [other for other in found.setdefault(owner.field, []) if other.path == owner.path]
        if same:
            found[owner.field].remove(same[0])
            owner = Owner(owner.field, owner.path, (*same[0].kinds, *owner.kinds))
        found[owner.field].append(owner)
    return {field: tuple(items) for field, items in found.items()}


def _walk(cls: type[BaseModel], path: Path, kinds: tuple[str, ...]) -> Iterator[Owner]:
    for name, field in cls.model_fields.items():
        if not (kinds and len(path) == 1 and name == "name"):
            yield Owner(name, path, kinds)
        if not path and name in KINDS_OF:
            for kind, part in KINDS_OF[name].items():
                yield from _walk(part, (name,), (kind,))
        else:
            for part in models_in(field.annotation):
                listed = (0,) if get_origin(field.annotation) is tuple else ()
                yield from _walk(part, (*path, name, *listed), kinds)


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The parts of a spec that a field's type holds."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from models_in(part)


def owners_of(key: str, location: Path, body: JsonObject) -> list[Owner]:
    """The parts that a key written at `location` may belong to, the likeliest first; empty for a word of no field.

    Parts below the place come first, then those of the kinds that the body names, then the nearest in the tree.
    """
    place = tuple(0 if isinstance(step, int) else step for step in location)

    def distance(owner: Owner) -> tuple[bool, bool, int]:
        shared = sum(1 for _ in _common(place, owner.path))
        return (
            owner.path[: len(place)] != place or not place,
            not owner.fits(body),
            -shared if place else len(owner.path),
        )

    for field in meant_fields(key):
        if found := owners().get(field):
            chosen = sorted((owner for owner in found if owner.path != place), key=distance) or list(found)
            return [
                replace(owner, path=(*location, *owner.path[len(place) :]))
                if owner.path[: len(place)] == place
                else owner
                for owner in chosen
            ]
    return []


def _common(one: Path, other: Path) -> Iterator[int | str]:
    for a, b in zip(one, other, strict=False):
        if a != b:
            return
        yield a


def closest(key: str, choices: list[str], least: float = CLOSE) -> tuple[str | None, float]:
    """The choice that is spelled most like a key, and how alike they are, from 0 to 1; None below `least`."""
    word = plain_word(key[:100])
    alike = [(SequenceMatcher(None, word, choice).ratio(), choice) for choice in choices]
    best = max(alike, default=(0.0, ""))
    return (best[1], best[0]) if best[0] >= least else (None, best[0])
