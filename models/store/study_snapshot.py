"""A study as one transaction sees it: its rows, their runs, and the experiments of these."""

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.orm import Session

from models.spec.parse import load_spec
from models.spec.rows import load_study
from models.spec.study import StudySpec
from models.store import studies
from models.store.study_scores import read_scores
from models.store.tables import Experiment, Study, StudyRow, StudyRun
from models.studies.comparison import Score
from models.studies.images import split_sizes


@dataclass
class StudySnapshot:
    """A study with its rows, runs and experiments, as read in this transaction."""

    study: Study
    spec: StudySpec
    rows: list[StudyRow]
    runs: dict[tuple[int, int], StudyRun]
    experiments: dict[int, Experiment]

    @classmethod
    def read(cls, session: Session, study: Study, *, brief: bool = False) -> "StudySnapshot":
        """Read a study; `brief` for how far it is."""
        runs = studies.runs_of(session, study.id)
        return cls(
            study,
            load_study(study.spec),
            studies.rows_of(session, study.id, brief=brief),
            {(run.position, run.repeat): run for run in runs},
            studies.experiments_of(session, runs, brief=brief),
        )

    def experiment(self, position: int, repeat: int) -> Experiment | None:
        """The experiment of one run, if it has begun and was not deleted."""
        run = self.runs.get((position, repeat))
        return None if run is None or run.experiment_id is None else self.experiments.get(run.experiment_id)

    def of_row(self, row: StudyRow) -> list[Experiment]:
        """The experiments of a row, by seed."""
        found = [self.experiment(row.position, repeat) for repeat in range(row.repeats)]
        return [experiment for experiment in found if experiment is not None]

    def is_deleted(self, row: StudyRow) -> bool:
        """Whether an experiment of a row was deleted; resuming the study makes it again."""
        return any(run.experiment_id is None and run.position == row.position for run in self.runs.values())

    def missing(self) -> list[tuple[StudyRow, int]]:
        """Runs that have not begun."""
        return [
            (row, repeat)
            for row in self.rows
            if row.reason is None
            for repeat in range(row.repeats)
            if (row.position, repeat) not in self.runs
        ]

    def scores(self, session: Session, experiments_dir: Path) -> dict[int, Score]:
        """The scores of its experiments, by id."""
        images = {one.id: row.images for row in self.rows for one in self.of_row(row)}
        found = [one for one in self.experiments.values() if one.id in images]

        def val_images(one: Experiment) -> int:
            return split_sizes(load_spec(one.spec), images[one.id])[1]

        return read_scores(session, experiments_dir, found, val_images)

    @property
    def unfinished(self) -> list[Experiment]:
        """Experiments that wait or run."""
        return [found for found in self.experiments.values() if not found.status.terminal]
