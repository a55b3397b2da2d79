"""Classes that no image is of keep their place: labels never shift."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from models.data.cifar10 import CIFAR10
from models.evaluation.confusion import confusion_matrix
from models.evaluation.outputs import read_outputs
from tests.worker.training.tiny import images, spec
from worker.training.engine import train
from worker.training.sink import MemorySink

CAT, HORSE = 3, 7


def test_a_network_that_saw_two_of_ten_classes_names_these_two(tmp_path: Path) -> None:
    whole = images(num=1200)
    train_rows = np.flatnonzero(np.isin(whole.train_labels, (CAT, HORSE)))
    test_rows = np.flatnonzero(np.isin(whole.test_labels, (CAT, HORSE)))
    some = replace(
        whole,
        info=replace(whole.info, num_train=len(train_rows), num_test=len(test_rows)),
        train_images=whole.train_images[train_rows],
        train_labels=whole.train_labels[train_rows],
        test_images=whole.test_images[test_rows],
        test_labels=whole.test_labels[test_rows],
    )
    asked = spec(epochs=4, dataset={"evaluate_test": True})
    outcome = train(asked, some, MemorySink(), tmp_path, device="cpu")
    assert outcome.status == "completed"
    for split in ("validation", "test"):
        found = read_outputs(tmp_path / f"outputs-{split}.safetensors")
        assert found.about.class_names == CIFAR10.class_names
        assert set(found.labels.tolist()) <= {CAT, HORSE}
        predicted = found.logits.argmax(axis=1)
        assert set(predicted.tolist()) <= {CAT, HORSE}
        matrix = confusion_matrix(found.labels, predicted, 10)
        assert matrix[[CAT, HORSE]][:, [CAT, HORSE]].sum() == len(found.labels)
