"""Decisions of a search from its trials so far: the next trial, trials to end early, the fields' importances.

Optuna's samplers and pruners decide, by ask and tell alone: its study is made anew in memory from the trials for each
question, so nothing of it is stored, and equal trials give equal answers in any process. A trial's value at an epoch
is its best validation accuracy until then. A trial that diverged counts as 0, one that failed or was cancelled not at
all.
"""

import math
import random
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import accumulate, chain, product
from typing import TYPE_CHECKING, Any

from models.curves.metrics import EpochMetrics
from models.plain import JsonObject
from models.spec.search import (
    Choices,
    Dimension,
    Pruner,
    Sampler,
    SearchSpec,
    num_combinations,
    num_trials,
    space_of,
    text_of,
    values_of,
)
from models.text import percent, plural

if TYPE_CHECKING:  # its import takes half a second, which processes without a search need not spend
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

ATTEMPTS = 50
"""How often a trial is drawn anew that was tried already, or whose spec cannot be run."""
REDUCTION = 3
"""Of the trials that reach a rung of successive halving, one in this many continues."""
FEWEST_IMPORTANT = 4
"""Trials with a value below which nothing is said about importance."""
TOP_TRIALS = 5
"""PED-ANOVA compares the best trials with all; at least so many of them are advised."""
MOST_LISTED = 10_000
"""Combinations of a finite space that are gone through for one that was not tried."""


class Ending(StrEnum):
    """The state of a trial."""

    WAITING = "waiting"
    """It waits or runs."""
    COMPLETE = "complete"
    """It was run in full, or diverged."""
    PRUNED = "pruned"
    """It was ended early by the search."""
    FAILED = "failed"
    """It has no value: failed, cancelled or deleted."""


@dataclass(frozen=True)
class Trial:
    """One trial."""

    number: int
    """From 0, in the order in which trials were drawn."""
    params: Mapping[str, Any]
    ending: Ending
    values: Mapping[int, float] = field(default_factory=dict)
    """The best validation accuracy until each epoch, counted from 1."""
    diverged: bool = False

    @property
    def value(self) -> float | None:
        """Its best validation accuracy; 0 if it diverged, None without an epoch or if it failed."""
        if self.diverged:
            return 0.0
        if self.ending in (Ending.FAILED, Ending.WAITING) or not self.values:
            return None
        return self.values[max(self.values)]


def load_optuna() -> None:
    """Import Optuna ahead of its first use, which should not be in a transaction that others wait for."""
    import optuna.importance
    import optuna.pruners
    import optuna.samplers

    optuna.logging.set_verbosity(optuna.logging.WARNING)


def best_so_far(history: Sequence[EpochMetrics]) -> dict[int, float]:
    """A trial's values from its epochs; epochs before the first finite accuracy have none."""
    best = accumulate((-1.0 if math.isnan(each.val_accuracy) else each.val_accuracy for each in history), max)
    return {epoch.epoch: value for epoch, value in zip(history, best, strict=True) if value >= 0}


def best_trial(trials: Sequence[Trial]) -> Trial | None:
    """The trial with the highest value among those that were run in full and did not diverge; the first of equals."""
    whole = [trial for trial in trials if trial.ending is Ending.COMPLETE and not trial.diverged]
    known = [(trial.value, -trial.number, trial) for trial in whole if trial.value is not None]
    return max(known, key=lambda each: each[:2])[2] if known else None


# the next trial


def next_params(
    search: SearchSpec, trials: Sequence[Trial], can_run: Callable[[Mapping[str, Any]], bool]
) -> JsonObject | None:
    """The values of the next trial: one that was not tried yet and `can_run`; None if none is found."""
    space = space_of(search)
    tried = {text_of(dict(trial.params)) for trial in trials}
    number = num_combinations(space)
    grid = _grid(search, space) if number is not None and number <= MOST_LISTED else iter(())
    drawn = grid if search.sampler is Sampler.GRID else chain(_asked(search, space, trials), grid)
    for params in drawn:
        if text_of(params) not in tried and can_run(params):
            return params
    return None


def _grid(search: SearchSpec, space: Mapping[str, Dimension]) -> Iterator[dict[str, Any]]:
    """All combinations in an order that the seed decides, so that some of many are spread over the space."""
    combinations = list(product(*(values_of(dimension) for dimension in space.values())))
    random.Random(search.seed).shuffle(combinations)
    return (dict(zip(space, values, strict=True)) for values in combinations)


def _asked(search: SearchSpec, space: Mapping[str, Dimension], trials: Sequence[Trial]) -> Iterator[dict[str, Any]]:
    """Yield what Optuna's sampler draws; each draw counts as the worst result when the next one is asked for.

    That turns TPE away from values that cannot be combined; this is forgotten with the study in memory.
    """
    study = _study(space, trials, sampler=_sampler(search, len(trials)))
    distributions = _distributions(space)
    for _ in range(ATTEMPTS):
        asked = study.ask(distributions)
        yield {name: _value_of(space[name], asked.params[name]) for name in space}
        study.tell(asked, 0.0)


def _sampler(search: SearchSpec, number: int) -> "BaseSampler":
    """The sampler of the trial with this number: it is seeded by both, so that it needs no state of its own."""
    from optuna.samplers import RandomSampler, TPESampler

    seed = random.Random(f"{search.seed} {number}").getrandbits(32)
    if search.sampler is Sampler.RANDOM:
        return RandomSampler(seed=seed)
    return TPESampler(
        seed=seed, n_startup_trials=num_startup(num_trials(search)), multivariate=True, constant_liar=True
    )


def num_startup(trials: int) -> int:
    """Trials that TPE draws at random before it has something to go by: a third of them, from 3 to 10."""
    return min(10, max(3, trials // 3))


# trials to end early


def why_stop(search: SearchSpec, trials: Sequence[Trial], trial: Trial, epochs: int, judged_at: int = 0) -> str | None:
    """Why a running trial of so many epochs is to be ended; None to go on, or where its last epoch is reached.

    `judged_at` is the epoch at which it was asked for the last time: a rung of successive halving is judged once.
    """
    if search.pruner is Pruner.NONE or not trial.values or (epoch := max(trial.values)) >= epochs:
        return None
    if search.pruner is Pruner.MEDIAN:
        return _below_median(search, trials, trial, epoch)
    return _out_of_rung(trials, trial, epochs, judged_at)


def _below_median(search: SearchSpec, trials: Sequence[Trial], trial: Trial, epoch: int) -> str | None:
    from optuna.pruners import MedianPruner

    fewest = min(5, max(1, num_trials(search) // 4))
    pruner = MedianPruner(n_startup_trials=fewest, n_warmup_steps=1)
    if not _would_prune(pruner, trials, trial, {}):
        return None
    others = [each for each in trials if each.ending is Ending.COMPLETE and epoch in each.values]
    reached = f"{percent(trial.values[epoch])} after epoch {epoch}"
    return f"pruned: {reached} is below the median of {plural(len(others), 'trial')} that ran in full, there"


def _out_of_rung(trials: Sequence[Trial], trial: Trial, epochs: int, judged_at: int) -> str | None:
    """Whether a trial is not among the best third at the last rung that it has reached.

    It is judged by its value at the rung's epoch, however many epochs have passed since.
    """
    from optuna.pruners import SuccessiveHalvingPruner

    rungs = [rung for rung in rungs_of(epochs) if rung in trial.values]
    if not rungs or rungs[-1] <= judged_at:
        return None
    rung = rungs[-1]
    until_rung = {epoch: value for epoch, value in trial.values.items() if epoch <= rung}
    judged = Trial(trial.number, trial.params, trial.ending, until_rung)
    reached = {each.number: _rung_values(each, rungs) for each in trials if each.number != trial.number}
    reached[trial.number] = _rung_values(judged, rungs[:-1])
    pruner = SuccessiveHalvingPruner(min_resource=rungs_of(epochs)[0], reduction_factor=REDUCTION)
    if not _would_prune(pruner, trials, judged, reached):
        return None
    number = 1 + sum(each.number != trial.number and rung in each.values for each in trials)
    value = f"{percent(trial.values[rung])} after epoch {rung}"
    return f"pruned: {value} is not among the best third of {plural(number, 'trial')} that reached it"


def rungs_of(epochs: int) -> list[int]:
    """The epochs after which successive halving judges a trial of so many: three or fewer, each thrice the last."""
    rungs = [max(1, epochs // REDUCTION**2)]
    while rungs[-1] * REDUCTION < epochs:
        rungs.append(rungs[-1] * REDUCTION)
    return rungs


def _rung_values(trial: Trial, rungs: Sequence[int]) -> dict[str, float]:
    """A trial's values at rungs, as Optuna keeps them."""
    return {f"completed_rung_{index}": trial.values[rung] for index, rung in enumerate(rungs) if rung in trial.values}


def _would_prune(
    pruner: "BasePruner", trials: Sequence[Trial], trial: Trial, rungs: Mapping[int, Mapping[str, float]]
) -> bool:
    others = [each for each in trials if each.number != trial.number]
    study = _study({}, [*others, trial], pruner=pruner, rungs=rungs)
    return pruner.prune(study, study.trials[-1])


# which fields matter


def importances(search: SearchSpec, trials: Sequence[Trial]) -> dict[str, float] | None:
    """How much each field decides whether a trial is among the best, in parts of 1, the largest first.

    By PED-ANOVA (Watanabe, Bansal and Hutter, IJCAI 2023), which needs no further library. Trials that were ended
    early count with what they had reached. None of too few trials, of equal ones, or where no field stands out.
    """
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    whole = [trial for trial in trials if trial.value is not None]
    if len(whole) < FEWEST_IMPORTANT or len({trial.value for trial in whole}) == 1:
        return None
    space = space_of(search)
    study = _study(space, [Trial(t.number, t.params, Ending.COMPLETE, t.values, t.diverged) for t in whole])
    evaluator = PedAnovaImportanceEvaluator(target_quantile=min(0.5, max(0.1, TOP_TRIALS / len(whole))))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns where many trials are equal to the worst of the best
        found = get_param_importances(study, evaluator=evaluator, params=list(space), normalize=False)
    total = sum(found.values())
    if not total > 0:
        return None
    return {name: found[name] / total for name in sorted(found, key=lambda name: -found[name])}


# Optuna's study


def _study(
    space: Mapping[str, Dimension],
    trials: Sequence[Trial],
    *,
    sampler: "BaseSampler | None" = None,
    pruner: "BasePruner | None" = None,
    rungs: Mapping[int, Mapping[str, float]] | None = None,
) -> "Study":
    """A study in memory that was told of these trials, in order."""
    import optuna
    from optuna.samplers import RandomSampler

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=sampler or RandomSampler(0), pruner=pruner)
    distributions = _distributions(space)
    for trial in trials:
        study.add_trial(_frozen(space, distributions, trial, (rungs or {}).get(trial.number, {})))
    return study


def _frozen(
    space: Mapping[str, Dimension],
    distributions: dict[str, "BaseDistribution"],
    trial: Trial,
    attributes: Mapping[str, Any],
) -> "FrozenTrial":
    from optuna.trial import TrialState, create_trial

    state = {
        Ending.WAITING: TrialState.RUNNING,
        Ending.COMPLETE: TrialState.COMPLETE,
        Ending.PRUNED: TrialState.PRUNED,
        Ending.FAILED: TrialState.FAIL,
    }[trial.ending]
    if trial.value is None and state is TrialState.COMPLETE:
        state = TrialState.FAIL
    return create_trial(
        state=state,
        value=trial.value if state is TrialState.COMPLETE else None,
        params={name: _told(dimension, trial.params[name]) for name, dimension in space.items()},
        distributions=distributions,
        intermediate_values=dict(trial.values),
        system_attrs=dict(attributes),
    )


def _distributions(space: Mapping[str, Dimension]) -> dict[str, "BaseDistribution"]:
    """Optuna's distributions. A choice is given by its index, since a value may be an object, and 1 is not true."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    found: dict[str, BaseDistribution] = {}
    for name, dimension in space.items():
        if isinstance(dimension, Choices):
            found[name] = CategoricalDistribution(tuple(range(len(dimension.values))))
        elif dimension.whole:
            step = int(dimension.step or 1)
            found[name] = IntDistribution(int(dimension.low), int(dimension.high), log=dimension.log, step=step)
        else:
            found[name] = FloatDistribution(dimension.low, dimension.high, log=dimension.log, step=dimension.step)
    return found


def _told(dimension: Dimension, value: Any) -> Any:
    return dimension.index_of(value) if isinstance(dimension, Choices) else value


def _value_of(dimension: Dimension, drawn: Any) -> Any:
    return dimension.values[drawn] if isinstance(dimension, Choices) else dimension.tidied(drawn)
