"""The results of a search: plain data, for documents, pictures and reports."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from models.spec.search import SearchSpec
from models.studies.search import Ending, Trial, best_trial


@dataclass(frozen=True, eq=False)
class SearchResult:
    """A search and its trials, in the order of the study's rows."""

    spec: SearchSpec
    trials: Sequence[Trial]
    num_trials: int
    """How many it has at most."""
    importances: Mapping[str, float] | None = None
    """Of its fields, in parts of 1, the largest first; None where too little is known."""
    stopped: str | None = None
    """Why no more trials are drawn, where that is not their number: "budget" or "space"."""

    @property
    def best(self) -> Trial | None:
        """The best trial that was run in full."""
        return best_trial(self.trials)

    @property
    def num_ended(self) -> int:
        """Trials that have ended."""
        return sum(trial.ending is not Ending.WAITING for trial in self.trials)
