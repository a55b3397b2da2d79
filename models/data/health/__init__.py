"""The health of a dataset: `health_report` and what it gives."""

from models.data.health.check import health_report
from models.data.health.report import Finding, HealthReport, Severity

__all__ = ["Finding", "HealthReport", "Severity", "health_report"]
