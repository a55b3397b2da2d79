"""Use cases of studies: create, list, cancel, resume, clone, delete."""

import hashlib
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy.orm import Session

from models.data.uploaded import find_dataset
from models.errors import FieldError, InvalidRequest, SpecError
from models.networks.memory import disk_use_of
from models.settings import Settings
from models.spec.parse import load_spec
from models.spec.rows import Parsed, cloned, parse_study, refuse, relocated
from models.spec.search import num_trials
from models.store import Store, artifacts, studies, study_progress, workers
from models.store.states import StudyStatus
from models.store.studies import NewRow
from models.store.study_costs import cost_key
from models.store.tables import Study
from models.studies.images import split_sizes
from models.text import duration, plural
from service.catalogue.inspector import Inspector
from service.experiments.submit import Submissions
from service.http.access import Caller
from service.http.preconditions import ANYTHING, Precondition
from service.studies.accept import accept_specs
from service.studies.documents import PlannedRow, StudyDocument, StudyPage, StudyPlanDocument
from service.studies.images import images_of
from service.studies.read import describe, describe_item
from service.studies.search import accept_space, new_search, plan_of

logger = logging.getLogger(__name__)

LEAST_SECONDS = 3.0
"""The shortest budget in seconds: no run takes less from the queue to its end."""


@dataclass(frozen=True, slots=True)
class Studies:
    """Creates, changes and removes studies; their runs are ordinary experiments."""

    settings: Settings
    store: Store
    inspector: Inspector
    submissions: Submissions

    def accept(self, body: Any) -> tuple[Parsed, list[NewRow]]:
        """Parse and validate a study and all of its rows. Raises SpecError with every field that is wrong.

        A search, whose rows are made while it runs, has a row for each network of its space instead.
        """
        parsed = parse_study(body)
        entries: list[FieldError] = []
        rows = []
        specs = accept_specs(self.inspector, [row.spec for row in parsed.rows])
        for row, accepted in zip(parsed.rows, specs, strict=True):
            if isinstance(accepted, SpecError):
                entries += relocated(accepted, row.place, row.key, parsed.overrides.get(row.key, {}))
            else:
                # of an uploaded dataset every run uses the version that is there now
                named = replace(row, spec=accepted.spec) if accepted.spec.dataset.fingerprint else row
                images = images_of(accepted.spec, accepted.info)
                rows.append(NewRow(named, accepted.layers, accepted.warnings, images))
        if parsed.spec.search is not None:
            rows, wrong = accept_space(self.inspector, parsed)
            entries += wrong
        entries += _too_short(parsed)
        refuse(entries)
        return parsed, rows

    def plan(self, body: Any) -> StudyPlanDocument:
        """Describe the runs of a study, without storing anything."""
        parsed, rows = self.accept(body)
        search = None if parsed.spec.search is None else plan_of(parsed.spec.search)
        if search is not None:
            del rows[1:]  # a trial with any of its networks
        with self.store.reading() as session:
            num_workers = len(workers.live(session))
        planned = [_planned(new, search.trials if search else new.row.num_seeds) for new in rows]
        return StudyPlanDocument(
            title=parsed.spec.title,
            rows=planned,
            runs=sum(row.runs for row in planned),
            workers=num_workers,
            budget_seconds=parsed.spec.budget_seconds,
            search=search,
        )

    def create(self, body: Any, caller: Caller, key: str | None = None, raw: bytes = b"") -> tuple[StudyDocument, bool]:
        """Store a study and begin it, or find that of the Idempotency-Key. Returns it and whether it is new."""
        parsed, rows = self.accept(body)
        # before the transaction, during which nobody else writes
        files = self._files_of(rows)
        for new in rows:
            load_spec(new.row.spec.as_json())  # as it is read back, and then kept

        def make() -> Study:
            if parsed.spec.search is not None:
                self.submissions.check_quotas(session, caller, 1, max(files) * num_trials(parsed.spec.search))
                return studies.create(session, parsed, [], owner=caller.name, search=new_search(rows))
            at_once = 1 if parsed.spec.budget else sum(new.row.num_seeds for new in rows)
            kept = sum(new.row.num_seeds * count for new, count in zip(rows, files, strict=True))
            self.submissions.check_quotas(session, caller, at_once, kept)
            return studies.create(session, parsed, rows, owner=caller.name)

        begun: list[int] = []
        with self.store.writing() as session:
            if key is None:
                study, created = make(), True
            else:
                study, created = studies.create_once(session, key, hashlib.sha256(raw).hexdigest(), caller.name, make)
            if created and parsed.spec.search is None:  # a worker draws the trials of a search
                begun = study_progress.advance(session, study.id, self.settings.experiments_dir)
            study_id = study.id
        self.submissions.enqueue(begun)
        with self.store.reading() as session:
            return describe(session, studies.get(session, study_id), self.settings.experiments_dir), created

    def _files_of(self, rows: Sequence[NewRow]) -> list[int]:
        """The bytes on disk that each row's run will take."""
        infos = {new.row.spec.dataset: find_dataset(new.row.spec.dataset, self.settings).info for new in rows}
        return [disk_use_of(new.row.spec, infos[new.row.spec.dataset], new.layers).files for new in rows]

    def clone(self, study_id: int, changes: Any, caller: Caller) -> StudyDocument:
        """A study like another one, with other values for some of its keys. Raises as `create` does."""
        with self.store.reading() as session:
            body = studies.as_body(studies.get(session, study_id))
        if not isinstance(changes, dict):
            refuse([{"field": "body", "message": "changes are an object with keys of a study"}])
        if "preset" in changes:
            refuse(
                [{"field": "preset", "message": "is not a change of a study; POST /api/v1/studies begins one of it"}]
            )
        return self.create(cloned(body, changes), caller)[0]

    def cancel(self, study_id: int) -> StudyDocument:
        """Cancel a study and those of its own runs that no other study waits for."""
        with self.store.writing() as session:
            study = studies.request_cancel(session, study_id)
            return describe(session, study, self.settings.experiments_dir)

    def resume(self, study_id: int, caller: Caller) -> StudyDocument:
        """Resume a study that was cancelled or whose rows failed. Raises as `create` does."""
        with self.store.writing() as session:
            study, again = studies.request_resume(session, study_id)
            session.flush()
            if study.search is None:
                again += study_progress.advance(session, study.id, self.settings.experiments_dir)
            self.submissions.check_quotas(session, caller, 0, 0)  # its runs are queued now, and counted
            document = describe(session, study, self.settings.experiments_dir)
        self.submissions.enqueue(again)
        return document

    def delete(self, study_id: int, *, with_experiments: bool, when: Precondition = ANYTHING) -> None:
        """Remove a study, and its own experiments if asked. Raises PreconditionFailed."""
        with self.store.writing() as session:
            study = studies.get(session, study_id)
            when.check(lambda: describe(session, study, self.settings.experiments_dir))
            removed = studies.delete(session, study_id, with_experiments=with_experiments)
        for experiment_id in removed:
            try:
                artifacts.remove_folder(self.settings.experiments_dir, experiment_id)
            except OSError as error:  # the record is gone; workers remove folders without one
                logger.warning("the folder of experiment %d could not be removed yet: %s", experiment_id, error)


def list_studies(session: Session, status: StudyStatus | None, cursor: str | None, limit: int) -> StudyPage:
    """Studies, the newest first, a page at a time."""
    if cursor is not None and not re.fullmatch(r"[1-9][0-9]{0,17}", cursor):
        raise InvalidRequest("the cursor is damaged", fix="use `next` unchanged, or get the first page")
    before = None if cursor is None else int(cursor)
    found, more, total = studies.list_page(session, status=status, before=before, limit=limit)
    items = [describe_item(session, study) for study in found]
    return StudyPage(items=items, next=str(found[-1].id) if more else None, total=total)


def _planned(new: NewRow, runs: int) -> PlannedRow:
    row = new.row
    train, val, test = split_sizes(row.spec, new.images)
    return PlannedRow(
        key=row.key,
        title=row.title,
        baseline=row.baseline,
        runs=runs,
        share=row.share,
        min_epochs=row.min_epochs,
        epochs=row.spec.epochs,
        train_images=train,
        val_images=val,
        test_images=test,
        cost=hashlib.sha256(cost_key(row.spec).encode()).hexdigest()[:16],
        spec=row.spec.as_json(),
    )


def _too_short(parsed: Parsed) -> list[FieldError]:
    budget, runs = parsed.spec.budget_seconds, max(1, sum(row.num_seeds for row in parsed.rows))
    if budget is None or budget >= (least := runs * LEAST_SECONDS):
        return []
    message = (
        f"of {duration(budget)} is too little for one epoch a row: {plural(runs, 'run')} take{'s' * (runs == 1)} "
        f"{duration(least)} to begin and end alone"
    )
    return [
        {"field": "budget", "message": message, "value": parsed.spec.budget, "nearest": f"{-(-int(least * 4) // 60)}m"}
    ]
