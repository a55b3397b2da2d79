"""The verdict: what happened in a run, in words a student understands."""

from models.verdict.judge import judge

__all__ = ["judge"]
