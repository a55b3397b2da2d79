"""Builds everything that a run needs before its first step from a spec and a dataset."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from models.data.dataset import ImageDataset
from models.data.splits import split_dataset
from models.networks.build import build_network, initialise
from models.networks.inputs import preprocessing_for
from models.networks.layers import head_of
from models.networks.starting import StartingWeights, read_weights, start_from
from models.preprocessing import Preprocessing
from models.spec.experiment import ExperimentSpec
from worker.training.averaging import AveragedWeights
from worker.training.batches.loader import EpochBatches, InputFormat, Split, first_images
from worker.training.criterion import Criterion
from worker.training.graphs import GraphedSteps, can_be_recorded
from worker.training.guard import build_finite_guard
from worker.training.meters import EpochMeters
from worker.training.optimizers import Freezing, build_optimizer
from worker.training.precision import MixedPrecision, resolve_precision
from worker.training.schedules import Schedule
from worker.training.seeds import Stream, derive_seed
from worker.training.state import TrainingState
from worker.training.stopping import EarlyStopping
from worker.training.tuning import Tuning

INITIALISE_PIXELS = 5000 * 32**2
"""Pixels of the training images used for an initialisation from data (see models.networks.build.initialise)."""


@dataclass(frozen=True)
class Data:
    """The three splits of a run, the format of the network's input, and the weights that it starts from, if any."""

    train: Split
    validation: Split
    test: Split
    preprocessing: Preprocessing
    input_format: InputFormat
    initial: StartingWeights | None = None


def build_data(spec: ExperimentSpec, dataset: ImageDataset, tuning: Tuning, initial: Path | None = None) -> Data:
    """Build the splits as tensors: memory-mapped on a CPU, copied once to a GPU.

    `initial` is the file of weights that model.init_from names.
    """
    preprocessing = preprocessing_for(spec, dataset.info)
    train, validation = split_dataset(dataset, spec)
    images, labels = torch.from_numpy(dataset.train_images), torch.from_numpy(dataset.train_labels)
    test_images, test_labels = torch.from_numpy(dataset.test_images), torch.from_numpy(dataset.test_labels)
    if tuning.images_on_device:
        images, labels = images.to(tuning.device), labels.to(tuning.device)
        test_images, test_labels = test_images.to(tuning.device), test_labels.to(tuning.device)

    def split(images: torch.Tensor, labels: torch.Tensor, indices: torch.Tensor) -> Split:
        return Split(images, labels, indices.to(images.device))

    return Data(
        train=split(images, labels, torch.from_numpy(train)),
        validation=split(images, labels, torch.from_numpy(validation)),
        test=split(test_images, test_labels, torch.arange(len(test_labels))),
        preprocessing=preprocessing,
        input_format=InputFormat(
            preprocessing=preprocessing,
            memory_format=torch.channels_last if tuning.channels_last else torch.contiguous_format,
            device=tuning.device,
        ),
        initial=None if initial is None else read_weights(initial),
    )


def build_batches(spec: ExperimentSpec, data: Data, tuning: Tuning) -> EpochBatches:
    """The training batches of every epoch."""
    return EpochBatches(
        data.train,
        data.input_format,
        spec.augmentation,
        batch_size=spec.batch_size,
        seed=spec.seed,
        chunk_images=tuning.chunk_images,
        prefetch=tuning.prefetch,
        balanced=spec.sampler == "balanced",
    )


def build_fresh_network(spec: ExperimentSpec, data: Data, cache_dir: Path | None) -> nn.Module:
    """The network before its first step: it depends on the spec, its seed and the images only."""
    torch.manual_seed(derive_seed(spec.seed, Stream.WEIGHTS))
    model = spec.model
    if data.initial is not None and model.starts_pretrained:  # other weights replace those that would be loaded
        model = model.model_copy(update={"pretrained": False} if "pretrained" in type(model).model_fields else {})
    network = build_network(
        model,
        num_classes=len(data.preprocessing.class_names),
        in_channels=data.preprocessing.channels,
        size=data.preprocessing.input_size,
        cache_dir=cache_dir,
    )
    count = int(INITIALISE_PIXELS / data.preprocessing.input_size**2)
    initialise(spec.model, network, lambda: first_images(data.train, data.input_format, count).cpu())
    if data.initial is not None:
        start_from(network, data.initial, data.preprocessing.class_names)
    return network.to(device=data.input_format.device, memory_format=data.input_format.memory_format)  # type: ignore[call-overload, no-any-return]


def build_state(
    spec: ExperimentSpec,
    data: Data,
    batches: EpochBatches,
    tuning: Tuning,
    cache_dir: Path | None,
    *,
    times_lowered: int = 0,
) -> TrainingState:
    """The state before the first step, the same whenever it is built.

    `times_lowered` is how often divergence has lowered the learning rate.
    """
    network = build_fresh_network(spec, data, cache_dir)
    torch.manual_seed(derive_seed(spec.seed, Stream.DROPOUT))
    head = head_of(network)
    freezing = Freezing(network, head, spec.fine_tuning)  # first: what it freezes for good is no optimizer's
    optimizer = build_optimizer(spec.optimizer, network, head, spec.fine_tuning, implementation=tuning.optimizer)
    steps_per_epoch = -(-len(batches) // spec.accumulate_batches)
    mixed_precision = MixedPrecision(resolve_precision(spec.precision, tuning.device), tuning.device)
    return TrainingState(
        network=network,
        parameters=[parameter for parameter in network.parameters() if parameter.requires_grad],
        optimizer=optimizer,
        schedule=Schedule(
            spec.lr_scheduler,
            optimizer,
            steps_per_epoch=steps_per_epoch,
            epochs=spec.epochs,
            base_lr=spec.optimizer.lr,
            last_step_at_bottom=spec.is_version_1,
            times_lowered=times_lowered,
        ),
        criterion=Criterion(spec, data.train, len(data.preprocessing.class_names), tuning.device),
        mixed_precision=mixed_precision,
        averaged=None if spec.ema_decay is None else AveragedWeights(network, spec.ema_decay),
        freezing=freezing,
        finite_guard=build_finite_guard(optimizer, tuning.device, scaled=mixed_precision.scaler is not None),
        early_stopping=EarlyStopping(spec.early_stopping),
        meters=EpochMeters(tuning.device),
        device=tuning.device,
        steps_per_epoch=steps_per_epoch,
        max_grad_norm=spec.clip_grad_norm,
        initial_weights={name: tensor.cpu().clone() for name, tensor in network.state_dict().items()},
    )


def build_graphs(spec: ExperimentSpec, state: TrainingState, tuning: Tuning) -> GraphedSteps | None:
    """Build the recorder of steps as CUDA graphs; None where that is not requested or not possible.

    It moves the learning rates to the device, so a checkpoint must be loaded before.
    """
    return GraphedSteps(state) if tuning.graphs and can_be_recorded(spec, state.mixed_precision) else None


def input_size_in(spec: ExperimentSpec, epoch: int, final_size: int) -> int:
    """The side of the training images in an epoch: the latest phase that has begun, or the final size."""
    sizes = [phase.input_size for phase in spec.progressive_resizing if phase.from_epoch <= epoch]
    return sizes[-1] if sizes else final_size
