"""The definition of a trial: typed settings, the vocabulary of a sweep file, and the id."""

from nodebench.spec.identity import Trial
from nodebench.spec.trial import TrialSpec

__all__ = ["Trial", "TrialSpec"]
