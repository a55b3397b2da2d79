"""Context of the pages of studies."""

from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from models.store import studies
from service.studies.read import describe
from service.studies.studies import list_studies

PAGE_SIZE = 25
ACTIVE = ("measuring", "queued", "running")


def studies_context(session: Session, cursor: str | None) -> dict[str, Any]:
    """Context of the list of studies."""
    page = list_studies(session, None, cursor, PAGE_SIZE)
    return {"items": page.items, "next": page.next, "busy": any(item.status in ACTIVE for item in page.items)}


def study_context(session: Session, study_id: int, experiments_dir: Path) -> dict[str, Any]:
    """Context of a study's page."""
    document = describe(session, studies.get(session, study_id), experiments_dir)
    return {
        "study": document,
        "active": document.status in ACTIVE,
        "has_published": any(row.published is not None for row in document.rows),
        "any_epoch": any(row.val_accuracy is not None or row.status == "running" for row in document.rows),
        "version": f"{document.progress.ended}-{document.status}",
    }
