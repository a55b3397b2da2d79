"""The verdict: what happened in a run, in words a student understands."""

from worker.training.verdict.judge import judge

__all__ = ["judge"]
