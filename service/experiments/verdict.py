"""The JSON document of a verdict."""

from pydantic import BaseModel, ConfigDict, Field

from models.errors import Conflict
from models.plain import JsonObject
from models.store.tables import Experiment
from service.http.prefix import with_prefix_in_suggestions


class Finding(BaseModel):
    """One finding about a run's history, with its evidence and a suggestion."""

    model_config = ConfigDict(extra="allow")

    code: str
    severity: str = Field(description="good, info, warning or problem.")
    sentence: str
    evidence: JsonObject | None = None
    suggestion: str | None = None


class VerdictDocument(BaseModel):
    """The verdict on a run, in plain words."""

    model_config = ConfigDict(extra="allow")

    experiment_id: int
    summary: str
    findings: list[Finding]

    @classmethod
    def of(cls, row: Experiment) -> "VerdictDocument":
        """Build the document from the stored verdict. Raises Conflict while there is none."""
        if row.verdict is None:
            raise Conflict(
                f"experiment {row.id} is {row.status} and has no verdict{'' if row.status.terminal else ' yet'}",
                fix="wait until its first epochs are measured" if not row.status.terminal else None,
            )
        findings = with_prefix_in_suggestions(row.verdict.get("findings", ()))
        return cls(**{**row.verdict, "findings": findings, "experiment_id": row.id})
