"""The verdict: what went well and what went wrong in a run, as findings on its history."""

from models.verdict.judge import Verdict, judge

__all__ = ["Verdict", "judge"]
