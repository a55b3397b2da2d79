"""The verdict's score: whole networks and a dataset are held out, and faults come through the engine."""

import pytest

from benchmarks.verdict_score import faults
from benchmarks.verdict_score.faults import FAULTS, PARTS, Case, Fault, body_of, cases
from benchmarks.verdict_score.scores import Judged, precision, recall, wilson
from benchmarks.verdict_score.trainings import run
from models.findings import CAUSES, FindingCode
from models.spec.parse import parse_spec
from models.verdict import judge
from tests.worker.training.tiny import images


def test_no_network_of_one_part_is_in_the_other_and_one_dataset_is_held_out() -> None:
    development, held_out, labels = (list(cases(part)) for part in PARTS)
    assert not {case.network for case in development} & {case.network for case in held_out}
    assert {case.dataset for case in held_out} - {case.dataset for case in development}
    assert not {case.seed for case in development} & {case.seed for case in held_out}
    assert not {case.seed for case in labels} & {case.seed for case in [*development, *held_out]}
    assert sorted({case.fault.name for case in labels}) == ["healthy", "healthy-cosine", "label-noise"]


def test_every_cause_that_a_verdict_names_is_injected() -> None:
    assert {fault.code for fault in FAULTS} - {None} == set(CAUSES)


def test_every_training_is_a_spec_that_can_be_posted() -> None:
    for part in PARTS:
        for case in cases(part):
            assert parse_spec(body_of(case)).epochs >= faults.EPOCHS


def test_recall_counts_trainings_with_the_fault_and_precision_those_of_which_it_was_said() -> None:
    def judged(fault: Fault, *named: FindingCode) -> Judged:
        return Judged(Case(fault, "baseline", "cifar10", 0, 0), frozenset(named))

    low, high = FindingCode.LR_TOO_LOW, FindingCode.LR_TOO_HIGH
    slow, healthy = Fault("slow", low), Fault("healthy")
    found = [judged(slow, low), judged(slow), judged(slow, high), judged(healthy, low), judged(healthy)]
    assert (recall(found, low).hits, recall(found, low).of) == (1, 3)
    assert (precision(found, low).hits, precision(found, low).of) == (1, 2)
    assert (precision(found, high).hits, precision(found, high).of) == (0, 1)


def test_the_interval_of_a_proportion_is_wilsons() -> None:
    assert wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert wilson(10, 10)[1] == 1


@pytest.mark.parametrize("name", ["not-shuffled", "wrong-head", "inputs-not-normalised"])
def test_what_no_spec_can_ask_for_comes_through_the_engine(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "EPOCHS", 1)
    fault = next(fault for fault in FAULTS if fault.name == name)
    given = run(Case(fault, "small_bn", "cifar10", 0, 0), images())
    verdict = judge(given.pop("history"), **given)
    assert [finding.code for finding in verdict.findings if finding.code in CAUSES] == [fault.code]
