"""A study's report: read from the store, then rendered in the requested format."""

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.orm import Session

from models.store.tables import Study
from models.studies.blocks import Report
from models.studies.report import build_report
from models.studies.results import StudyResult
from service.studies.figures import figure_drawer, find_kernel_files
from service.studies.html import render_html
from service.studies.markdown import render_markdown
from service.studies.pdf import render_pdf
from service.studies.read import read_result


@dataclass(frozen=True, slots=True)
class StudyReport:
    """A report with all that its figures are drawn from."""

    report: Report
    result: StudyResult
    kernel_files: dict[str, Path]

    @property
    def key(self) -> tuple[object, ...]:
        """Everything that the report's bytes depend on."""
        histories = [[run.history for run in row.runs] for row in self.result.rows]
        kernels = [
            (key, str(path), path.stat().st_mtime_ns) for key, path in self.kernel_files.items() if path.is_file()
        ]
        return self.report, histories, kernels, sorted(self.result.lr_tests)

    def render(self, form: str) -> bytes:
        """Render the report as html, md or pdf."""
        draw = figure_drawer(self.result, self.kernel_files)
        if form == "md":
            return render_markdown(self.report, draw)
        page = render_html(self.report, draw)
        return render_pdf(page) if form == "pdf" else page


def read_report(session: Session, study: Study, experiments_dir: Path) -> StudyReport:
    """The report of a study, finished or not."""
    result = read_result(session, study, experiments_dir)
    return StudyReport(build_report(result), result, find_kernel_files(session, result, experiments_dir))
