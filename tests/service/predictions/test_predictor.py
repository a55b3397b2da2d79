"""Predictions: correct, the same alone and in a batch, and never from weights that differ from what was stored."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from models.errors import Conflict, CorruptFile, InvalidRequest, NotFound
from models.preprocessing import Preprocessing
from models.settings import Settings
from models.store.states import ArtifactKind
from service.predictions import predictor as predictor_module
from service.predictions.predictor import Predictor, Served
from tests.service.predictions.trained import Lab, Trained, plain_answer, random_images, with_nan
from tests.stores import new_store

NETWORKS: list[Any] = [
    "baseline",
    "three_blocks_batch_norm",
    "fast_resnet",
    {"name": "squeezenet1_1", "pretrained": True, "input_size": 64},
    {"name": "mobilenet_v3_small"},
]
"""One of each kind; tests/models/networks/test_export.py compares the graphs of more of them with torch."""


@pytest.fixture
def predictor(lab: Lab) -> Iterator[Predictor]:
    """The lab's predictor."""
    predictor = Predictor(lab.store, lab.settings)
    yield predictor
    predictor.close()


@dataclass(frozen=True)
class Asked:
    """A trained network and what answers for it."""

    trained: Trained
    predictor: Predictor
    served: Served


@pytest.fixture(scope="module", params=NETWORKS, ids=str)
def network(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    """Each network with random weights, and its lab's predictor."""
    settings = Settings(data_dir=tmp_path_factory.mktemp("lab"))
    store = new_store(settings)
    predictor = Predictor(store, settings)
    trained = Lab(store, settings).train(request.param)
    yield Asked(trained, predictor, predictor.find(trained.id))
    predictor.close()
    store.dispose()


def probabilities_of(predictor: Predictor, served: Served, images: Sequence[NDArray[np.uint8]]) -> list[Any]:
    """Uncalibrated probabilities (classes,) of each image."""
    return [judged.probabilities for judged in predictor.judge(served, images)]


def test_probabilities_are_those_of_plain_pytorch(network: Asked) -> None:
    images = random_images(5, network.served.weights.preprocessing)
    answers = np.stack(probabilities_of(network.predictor, network.served, images))
    assert answers.shape == (5, 10)
    assert np.abs(answers.sum(axis=1) - 1).max() < 1e-12
    expected = plain_answer(network.trained, images)
    assert np.abs(answers - expected).max() < 1e-5  # two ways to divide by 255, two batch sizes


def test_images_are_made_smaller_as_the_weights_were_trained(lab: Lab, predictor: Predictor) -> None:
    """Antialiased for weights that say so; files of spec version 1 say nothing, and get what they were trained on."""
    smaller = {"name": "fast_resnet", "input_size": 16}
    answers = []
    for version in (2, 1):
        trained = lab.train(smaller, spec_version=version)
        about = trained.preprocessing.to_json()
        assert about["antialias"] == (version == 2)
        if version == 1:
            trained = replace(trained, preprocessing=Silent(**vars(trained.preprocessing)))
            lab.save(trained)
        served = predictor.find(trained.id)
        images = random_images(5, served.weights.preprocessing)
        answers.append(np.stack(probabilities_of(predictor, served, images)))
        assert np.abs(answers[-1] - plain_answer(trained, images)).max() < 1e-5
    assert np.abs(answers[0] - answers[1]).max() > 1e-4


class Silent(Preprocessing):
    """Preprocessing as version 1 wrote it."""

    def to_json(self) -> dict[str, Any]:
        """Without a word of antialiasing."""
        return {key: value for key, value in super().to_json().items() if key != "antialias"}


def test_answers_in_company_are_those_alone_to_the_bit(network: Asked) -> None:
    predictor, served = network.predictor, network.served
    images = random_images(36, served.weights.preprocessing)
    alone = [probabilities_of(predictor, served, [image])[0] for image in images[:4]]
    together = probabilities_of(predictor, served, images)
    backwards = probabilities_of(predictor, served, images[::-1])[::-1]
    assert all((a == b).all() for a, b in zip(alone, together, strict=False))
    assert all((a == b).all() for a, b in zip(backwards, together, strict=True))


def test_an_image_and_its_mirror_image_get_one_answer_where_validation_averaged_them(
    lab: Lab, predictor: Predictor
) -> None:
    plain = predictor.find(lab.train("wide").id)
    mirrored = predictor.find(lab.train("wide", test_time_augmentation="mirror").id)
    [image] = random_images(1, plain.weights.preprocessing)
    flipped = np.ascontiguousarray(image[:, :, ::-1])
    one, other = probabilities_of(predictor, mirrored, [image, flipped])
    assert np.abs(one - other).max() < 1e-6
    assert np.abs(np.subtract(*probabilities_of(predictor, plain, [image, flipped]))).max() > 1e-3
    logits = [np.log(answer) for answer in probabilities_of(predictor, plain, [image, flipped])]
    average = np.exp((logits[0] + logits[1]) / 2)
    assert np.abs(one - average / average.sum()).max() < 1e-6


def test_many_threads_and_several_networks_at_once_get_the_serial_answers(lab: Lab, predictor: Predictor) -> None:
    served = [
        predictor.find(lab.train(model, seed=seed).id) for seed, model in enumerate(["baseline", "narrow", "wide"])
    ]
    images = random_images(100, served[0].weights.preprocessing)
    asked = [(served[number % 3], images[number % 100]) for number in range(300)]
    serial = [probabilities_of(predictor, network, [image])[0] for network, image in asked]
    with ThreadPoolExecutor(48) as pool:
        parallel = list(pool.map(lambda one: probabilities_of(predictor, one[0], [one[1]])[0], asked))
    assert all((a == b).all() for a, b in zip(serial, parallel, strict=True))


def test_an_experiment_without_a_graph_gets_one_when_it_is_asked(lab: Lab, predictor: Predictor) -> None:
    """Those that were trained before graphs were written, and those whose graph is damaged."""
    old = lab.train("baseline", graph=False)
    images = random_images(2, old.preprocessing)
    assert (
        np.abs(np.stack(probabilities_of(predictor, predictor.find(old.id), images)) - plain_answer(old, images)).max()
        < 1e-5
    )
    damaged = lab.train("baseline", seed=1)
    (damaged.path / "graph.onnx").write_bytes(b"no graph")
    answers = probabilities_of(predictor, predictor.find(damaged.id), images)
    assert np.abs(np.stack(answers) - plain_answer(damaged, images)).max() < 1e-5


def test_gray_images_are_answered(lab: Lab, predictor: Predictor) -> None:
    trained = lab.train("baseline", dataset="fashion-mnist")
    served = predictor.find(trained.id)
    images = random_images(3, served.weights.preprocessing)
    assert images[0].shape == (1, 28, 28)
    assert np.abs(np.stack(probabilities_of(predictor, served, images)) - plain_answer(trained, images)).max() < 1e-5


def test_best_and_last_are_different_weights(lab: Lab, predictor: Predictor) -> None:
    trained = lab.train(seed=1)
    last = Trained(trained.claim, lab.train(seed=2).network, trained.preprocessing, trained.path)
    lab.save(last, which="last", epoch=9)
    images = random_images(2, trained.preprocessing)
    for which, epoch, source in (("best", 3, trained), ("last", 9, last)):
        served = predictor.find(trained.id, which)
        assert (served.weights.which, served.weights.epoch) == (which, epoch)
        assert np.abs(np.stack(probabilities_of(predictor, served, images)) - plain_answer(source, images)).max() < 1e-6


def test_better_weights_take_over_and_those_in_hand_stay_usable(lab: Lab, predictor: Predictor) -> None:
    trained = lab.train(seed=1)
    old = predictor.find(trained.id)
    assert predictor.find(trained.id) is old
    better = Trained(trained.claim, lab.train(seed=2).network, trained.preprocessing, trained.path)
    lab.save(better, epoch=4)
    new = predictor.find(trained.id)
    assert new.weights.epoch == 4
    images = random_images(2, trained.preprocessing)
    for served, source in ((old, trained), (new, better)):
        assert np.abs(np.stack(probabilities_of(predictor, served, images)) - plain_answer(source, images)).max() < 1e-6


def test_weights_that_are_being_replaced_are_found_again(lab: Lab, predictor: Predictor) -> None:
    trained = lab.train(seed=1)
    lab.save(
        Trained(trained.claim, lab.train(seed=2).network, trained.preprocessing, trained.path), epoch=4, record=False
    )
    with ThreadPoolExecutor(1) as pool:
        finding = pool.submit(predictor.find, trained.id)
        lab.record(trained, "weights-best.safetensors", ArtifactKind.WEIGHTS_BEST)
        assert finding.result(30).weights.epoch == 4


@pytest.mark.parametrize("damage", ["flip", "cut", "gone"])
def test_damaged_weights_are_never_used(lab: Lab, predictor: Predictor, damage: str) -> None:
    trained = lab.train()
    path = trained.path / "weights-best.safetensors"
    data = bytearray(path.read_bytes())
    data[-1000] ^= 1
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(data if damage == "flip" else data[:5000])
    with pytest.raises(CorruptFile):
        predictor.find(trained.id)


def test_a_file_that_is_not_of_its_network_is_refused(lab: Lab, predictor: Predictor) -> None:
    trained = lab.train("baseline")
    lab.save(Trained(trained.claim, lab.train("wide").network, trained.preprocessing, trained.path))
    with pytest.raises(CorruptFile, match="do not fit its network"):
        probabilities_of(predictor, predictor.find(trained.id), random_images(1, trained.preprocessing))


def test_weights_that_give_nan_say_so(lab: Lab, predictor: Predictor) -> None:
    trained = with_nan(lab.train())
    lab.save(trained)
    with pytest.raises(Conflict, match="no finite prediction"):
        probabilities_of(predictor, predictor.find(trained.id), random_images(1, trained.preprocessing))


@pytest.mark.parametrize(("which", "other"), [("best", "last"), ("last", "best")])
def test_a_conflict_about_diverged_weights_names_the_others_where_they_may_work(
    lab: Lab, predictor: Predictor, which: str, other: str
) -> None:
    trained = lab.train(which=other)
    images = random_images(1, trained.preprocessing)
    with pytest.raises(Conflict, match=f"has no {which} weights") as missing:
        predictor.find(trained.id, which)
    assert missing.value.fix == f"ask for its {other} weights: weights={other}"
    lab.save(with_nan(trained), which=which, graph=False)
    with pytest.raises(Conflict, match=f"the {which} weights .* no finite prediction") as diverged:
        probabilities_of(predictor, predictor.find(trained.id, which), images)
    assert diverged.value.fix == f"its {other} weights are finite: ask experiment {trained.id} with weights={other}"
    lab.save(trained, which=other, graph=False)  # which are not finite either, by now
    with pytest.raises(Conflict, match="no finite prediction") as both:
        probabilities_of(predictor, predictor.find(trained.id, which), images)
    assert both.value.fix == "train at a lower learning rate"


def test_what_is_not_there_is_named(lab: Lab, predictor: Predictor) -> None:
    with pytest.raises(NotFound):
        predictor.find(99)
    claim = lab.add_experiment()
    with pytest.raises(Conflict, match="is running and has no best weights yet"):
        predictor.find(claim.experiment_id)
    with pytest.raises(InvalidRequest, match="keeps its best and its last"):
        predictor.find(claim.experiment_id, "first")


def test_images_of_another_shape_are_refused(lab: Lab, predictor: Predictor) -> None:
    served = predictor.find(lab.train().id)
    with pytest.raises(InvalidRequest, match=r"this network takes \(3, 32, 32\)"):
        probabilities_of(predictor, served, [np.zeros((3, 31, 32), np.uint8)])
    assert probabilities_of(predictor, served, []) == []


def test_only_a_few_networks_are_kept(lab: Lab, predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    first = lab.train(seed=0)
    kept = predictor.find(first.id)
    others = [lab.train(seed=seed).id for seed in range(1, 4)]
    monkeypatch.setattr(predictor_module, "MAX_NETWORKS", 2)
    for number in others:
        predictor.find(number)
    assert predictor.find(first.id) is not kept
    monkeypatch.setattr(predictor_module, "MAX_BYTES", 1)
    last = predictor.find(others[0])
    assert predictor.find(others[0]) is last  # the one in use is kept, however large
    assert len(probabilities_of(predictor, last, random_images(1, first.preprocessing))) == 1
