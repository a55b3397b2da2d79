"""Arbitrary valid specs, for properties that must hold of all of them."""

from typing import Any

from hypothesis import strategies as st

from models.spec.experiment import ExperimentSpec
from models.spec.model import BlockSpec, CnnSpec, ConvSpec, FastResNetSpec, HeadSpec, ZooName, ZooSpec
from models.spec.parse import parse_spec

input_sizes = st.none() | st.integers(8, 512)

convs = st.builds(
    ConvSpec,
    channels=st.integers(1, 64) | st.integers(1, 4096),
    kernel_size=st.sampled_from([1, 3, 5]) | st.integers(1, 31),
    padding=st.integers(0, 2) | st.integers(0, 31),
    stride=st.just(1) | st.integers(1, 8),
    batch_norm=st.booleans(),
)

blocks = st.builds(
    BlockSpec,
    convs=st.lists(convs, min_size=1, max_size=4).map(tuple),
    pool=st.none() | st.integers(2, 8),
    dropout=st.just(0.0) | st.floats(0, 0.95),
)


@st.composite
def heads(draw: Any) -> HeadSpec:
    hidden = draw(st.lists(st.integers(1, 512) | st.integers(1, 65_536), max_size=3))
    dropout = draw(st.just(()) | st.tuples(*[st.floats(0, 0.95)] * (len(hidden) + 1)))
    return HeadSpec(hidden=tuple(hidden), dropout=dropout)


cnns = st.builds(
    CnnSpec, blocks=st.lists(blocks, min_size=1, max_size=4).map(tuple), head=heads(), input_size=input_sizes
)
ZOO = {
    "alexnet": 64,
    "convnext_tiny": 32,
    "densenet121": 64,
    "efficientnet_b0": 64,
    "googlenet": 64,
    "inception_v3": 75,
    "maxvit_t": 224,
    "mnasnet0_5": 64,
    "mobilenet_v3_small": 64,
    "regnet_y_400mf": 64,
    "resnet18": 64,
    "shufflenet_v2_x0_5": 64,
    "squeezenet1_0": 64,
    "squeezenet1_1": 64,
    "swin_t": 64,
    "vgg11": 64,
    "vit_b_32": 64,
}
"""One network or two of each of torchvision's families, the smallest, and a size that each takes."""

LIGHT = [ZooName.SQUEEZENET1_0, ZooName.SQUEEZENET1_1, ZooName.RESNET18, ZooName.SHUFFLENET_V2_X1_0, ZooName.VGG11_BN]

zoo = st.builds(ZooSpec, name=st.sampled_from(LIGHT), pretrained=st.booleans(), input_size=input_sizes)
fast_resnets = st.builds(
    FastResNetSpec,
    widths=st.tuples(*[st.integers(1, 512)] * 3),
    whiten=st.booleans(),
    input_size=input_sizes,
)

optimizers = st.sampled_from(
    [{"name": "sgd", "momentum": 0.0}, {"name": "sgd", "lr": 50.0}, {"name": "adam", "lr": 1e-9}, {"name": "rmsprop"}]
)


@st.composite
def experiments(draw: Any, networks: st.SearchStrategy[Any] = cnns | zoo | fast_resnets) -> ExperimentSpec:
    model = draw(networks)
    return parse_spec(
        {
            "model": model.model_dump(mode="json"),
            "dataset": {
                "train_limit": draw(st.none() | st.integers(2, 100_000)),
                "val_limit": draw(st.none() | st.integers(1, 100_000)),
                "val_fraction": draw(st.floats(0.01, 0.9)),
            },
            "batch_size": draw(st.integers(1, 256) | st.integers(1, 65_536)),
            "epochs": draw(st.integers(1, 200)),
            "optimizer": draw(optimizers),
            "ema_decay": draw(st.none() | st.floats(0, 0.999999)),
            "augmentation": {"vflip": draw(st.floats(0, 1)), "cutout_pixels": draw(st.integers(0, 512))},
            "progressive_resizing": draw(
                st.just([]) | st.integers(8, 512).map(lambda size: [{"from_epoch": 1, "input_size": size}])
            ),
        }
    )
