"""Makes a warning about a valid spec, and the sizes of splits that many warnings need."""

from models.data.info import DatasetInfo
from models.data.splits import split_counts
from models.findings import FindingJson, Severity, WarningCode
from models.plain import JsonObject
from models.spec.experiment import ExperimentSpec

Warned = FindingJson


def warning(
    code: WarningCode,
    sentence: str,
    values: JsonObject,
    suggestion: str,
    changes: JsonObject | None = None,
    *,
    severity: Severity = Severity.WARNING,
) -> Warned:
    """A warning as JSON data: a finding as a verdict has it, with `changes`, the fields that the suggestion would set.

    A field is written as errors write it, with dots; None takes it out. Where the suggestion sets nothing that can be
    named (more images, another head), `changes` is empty.
    """
    return {
        "code": code.value,
        "severity": severity.value,
        "sentence": sentence,
        "evidence": {"epochs": [], "values": values},
        "suggestion": suggestion,
        "changes": changes or {},
    }


def split_sizes(spec: ExperimentSpec, info: DatasetInfo) -> tuple[int, int]:
    """How many images are trained and validated on, as models.data.splits makes the splits."""
    num_train, num_val = split_counts(spec.dataset, info)
    return min(num_train, spec.dataset.train_limit or num_train), min(num_val, spec.dataset.val_limit or num_val)
