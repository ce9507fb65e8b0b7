"""What a trial is: typed settings, the vocabulary of a sweep file, and a trial's id."""

from nodebench.spec.identity import Trial
from nodebench.spec.trial import TrialSpec

__all__ = ["Trial", "TrialSpec"]
