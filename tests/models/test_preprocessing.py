"""What an image becomes is decided by the spec and the dataset, and survives being stored."""

import json

import pytest

from models.data.cifar10 import CIFAR10
from models.data.fashion_mnist import FASHION_MNIST
from models.data.info import DatasetInfo
from models.networks.inputs import preprocessing_for
from models.preprocessing import IMAGENET_MEAN, Preprocessing
from models.spec.parse import parse_spec


def test_a_plain_cnn_gets_the_datasets_own_channels_from_minus_one_to_one() -> None:
    found = preprocessing_for(parse_spec({"model": "baseline"}), FASHION_MNIST)
    assert (found.channels, found.grayscale, found.source_size, found.input_size) == (1, True, 28, 28)
    assert (found.mean, found.std) == ((0.5,), (0.5,))
    assert found.class_names == FASHION_MNIST.class_names


def test_other_networks_from_scratch_get_the_datasets_statistics() -> None:
    found = preprocessing_for(parse_spec({"model": "fast_resnet"}), CIFAR10)
    assert (found.mean, found.std) == (CIFAR10.mean, CIFAR10.std)


def test_a_pretrained_network_gets_three_channels_in_imagenets_normalisation() -> None:
    spec = parse_spec({"model": {"name": "squeezenet1_1", "pretrained": True, "input_size": 64}})
    found = preprocessing_for(spec, FASHION_MNIST)
    assert (found.channels, found.grayscale, found.source_size, found.input_size) == (3, True, 28, 64)
    assert found.mean == IMAGENET_MEAN
    assert not preprocessing_for(spec, CIFAR10).grayscale


def test_new_weights_are_of_antialiased_images_and_earlier_ones_are_not() -> None:
    assert preprocessing_for(parse_spec({"model": "three_blocks"}), CIFAR10).antialias
    first = preprocessing_for(parse_spec({"model": "three_blocks", "spec_version": 1}), CIFAR10)
    assert not first.antialias
    stored = {key: value for key, value in first.to_json().items() if key != "antialias"}  # as version 1 wrote it
    assert Preprocessing.from_json(stored) == first


@pytest.mark.parametrize("info", [CIFAR10, FASHION_MNIST])
def test_it_is_read_back_as_it_was_written(info: DatasetInfo) -> None:
    found = preprocessing_for(parse_spec({"model": "three_blocks"}), info)
    assert Preprocessing.from_json(json.loads(json.dumps(found.to_json()))) == found
