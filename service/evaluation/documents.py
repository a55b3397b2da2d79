"""JSON documents of the best weights' evaluation on a split."""

from dataclasses import asdict
from typing import Any

from pydantic import Field

from models.evaluation.calibration import reliability
from models.evaluation.confusion import Counts, class_figures, macro_average, most_confused
from models.evaluation.outputs import AboutOutputs, Outputs
from models.evaluation.roc import RocCurve, thinned
from service.evaluation.read import Mistake, OutputsSource, calibration_errors
from service.http.documents import Document

MAX_PAIRS = 20


class OfSplit(Document):
    """The split and the weights of an evaluation."""

    experiment_id: int
    split: str
    epoch: int = Field(description="The epoch whose weights, the best, were measured.")
    num_images: int = Field(description="Images that the figures were measured on.")


class ClassScoresDocument(Document):
    """Precision, recall and F1 of one class, with counts; null where a figure would be 0 divided by 0."""

    label: str
    num_images: int
    num_predicted: int = Field(description="Images that are predicted as this class.")
    precision: float | None
    recall: float | None
    f1: float | None


class PairDocument(Document):
    """Images of one class that are predicted as another."""

    label: str
    predicted: str
    count: int
    share: float = Field(description="Of the images of `label`.")


class ConfusionDocument(OfSplit):
    """The confusion matrix, each class's figures, and the most confused pairs."""

    accuracy: float
    class_names: list[str]
    matrix: list[list[int]] = Field(description="A row is an image's class, a column its predicted class.")
    classes: list[ClassScoresDocument]
    macro_precision: float | None = Field(description="Means over the classes that have the figure.")
    macro_recall: float | None
    macro_f1: float | None
    most_confused: list[PairDocument] = Field(description="Pairs of classes with the most mistakes, at most 20.")


class RocClass(Document):
    """A class against all others. Null where the split holds no image of it, or no other."""

    label: str
    auc: float | None
    false_positive_rate: list[float] | None
    true_positive_rate: list[float] | None


class RocDocument(OfSplit):
    """Receiver operating characteristics."""

    macro_auc: float | None = Field(description="The mean of the classes' areas.")
    macro: RocClass | None = Field(description="Mean true positive rates at equal false positive rates.")
    classes: list[RocClass]


class MistakeDocument(Document):
    """A wrongly classified image."""

    index: int = Field(description="Its position in the split, from 0.")
    label: str
    predicted: str
    probability: float = Field(description="Of the predicted class, not calibrated.")
    label_probability: float = Field(description="Of its own class.")
    image: str = Field(description="Its address.")


class MistakesDocument(OfSplit):
    """The wrong predictions of the highest confidence."""

    num_wrong: int = Field(description="All of them, or of the pair of classes that was asked for.")
    mistakes: list[MistakeDocument]


class BinDocument(Document):
    """Images whose highest probability lies in (low, high]."""

    low: float
    high: float
    num_images: int
    confidence: float | None
    accuracy: float | None


class CalibrationDocument(OfSplit):
    """Calibration on a split: how well probabilities agree with the accuracy."""

    accuracy: float
    confidence: float = Field(description="Mean of the highest probabilities.")
    temperature: float | None = Field(
        description="Fitted on the validation split; null with fewer than 100 validation images."
    )
    energy_threshold: float | None = Field(description="The energy that 95% of the validation images do not exceed.")
    unknown_threshold: float | None = Field(
        description="The `unknown_score` that 95% of them do not exceed; null where none was fitted."
    )
    expected_calibration_error: float
    calibrated_expected_calibration_error: float | None
    bins: list[BinDocument]
    calibrated_bins: list[BinDocument] | None


def confusion_document(source: OutputsSource, about: AboutOutputs, matrix: Counts) -> ConfusionDocument:
    """Counts, the figures of each class, and the pairs that are confused most."""
    names, figures = about.class_names, class_figures(matrix)
    return ConfusionDocument(
        **_of_split(source, about, int(matrix.sum())),
        accuracy=float(matrix.trace() / matrix.sum()),
        class_names=list(names),
        matrix=matrix.tolist(),
        classes=[ClassScoresDocument(label=name, **asdict(one)) for name, one in zip(names, figures, strict=True)],
        macro_precision=macro_average([one.precision for one in figures]),
        macro_recall=macro_average([one.recall for one in figures]),
        macro_f1=macro_average([one.f1 for one in figures]),
        most_confused=[
            PairDocument(label=names[one.label], predicted=names[one.predicted], count=one.count, share=one.share)
            for one in most_confused(matrix, MAX_PAIRS)
        ],
    )


def roc_document(
    source: OutputsSource, outputs: Outputs, curves: list[RocCurve | None], macro: RocCurve | None
) -> RocDocument:
    """A curve a class, thinned to at most 200 points, and their mean."""
    return RocDocument(
        **_of_split(source, outputs.about, len(outputs.labels)),
        macro_auc=None if macro is None else macro.area,
        macro=None if macro is None else _roc_class("macro average", macro),
        classes=[_roc_class(name, curve) for name, curve in zip(outputs.about.class_names, curves, strict=True)],
    )


def mistakes_document(
    source: OutputsSource, outputs: Outputs, mistakes: list[Mistake], limit: int, root: str
) -> MistakesDocument:
    """The first of the mistakes; the split's images are below the address `root`."""
    names = outputs.about.class_names
    return MistakesDocument(
        **_of_split(source, outputs.about, len(outputs.labels)),
        num_wrong=len(mistakes),
        mistakes=[
            MistakeDocument(
                index=one.position,
                label=names[one.label],
                predicted=names[one.predicted],
                probability=one.probability,
                label_probability=one.label_probability,
                image=f"{root}/{one.position}.png",
            )
            for one in mistakes[:limit]
        ],
    )


def calibration_document(source: OutputsSource, outputs: Outputs, validation: AboutOutputs) -> CalibrationDocument:
    """Calibration on this split, by the temperature that was fitted on the validation split."""
    fitted = validation.calibration if validation.weights_sha256 == outputs.about.weights_sha256 else None
    temperature = None if fitted is None else fitted.temperature
    before, after, error, calibrated_error = calibration_errors(outputs, temperature)
    return CalibrationDocument(
        **_of_split(source, outputs.about, len(outputs.labels)),
        accuracy=float((before.argmax(axis=1) == outputs.labels).mean()),
        confidence=float(before.max(axis=1).mean()),
        temperature=temperature,
        energy_threshold=None if fitted is None else fitted.energy_threshold,
        unknown_threshold=None if fitted is None or fitted.unknown is None else fitted.unknown.threshold,
        expected_calibration_error=error,
        calibrated_expected_calibration_error=calibrated_error,
        bins=[BinDocument(**asdict(one)) for one in reliability(before, outputs.labels)],
        calibrated_bins=None
        if after is None
        else [BinDocument(**asdict(one)) for one in reliability(after, outputs.labels)],
    )


def _of_split(source: OutputsSource, about: AboutOutputs, num_images: int) -> dict[str, Any]:
    return {
        "experiment_id": source.experiment_id,
        "split": source.split.value,
        "epoch": about.epoch,
        "num_images": num_images,
    }


def _roc_class(label: str, curve: RocCurve | None) -> RocClass:
    if curve is None:
        return RocClass(label=label, auc=None, false_positive_rate=None, true_positive_rate=None)
    x, y = thinned(curve)
    return RocClass(label=label, auc=curve.area, false_positive_rate=x.tolist(), true_positive_rate=y.tolist())
