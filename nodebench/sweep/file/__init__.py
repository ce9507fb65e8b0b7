"""The fields of a sweep file around its trials: axes, seeds, evaluations, resources, limits."""

from nodebench.sweep.file.claim import MEASURES, Claim
from nodebench.sweep.file.evaluate import Evaluate
from nodebench.sweep.file.made import SMALLER, WRITTEN_FIELD, Made, SizeName, full_name
from nodebench.sweep.file.resources import Resources
from nodebench.sweep.file.search import Range, Search, Stop
from nodebench.sweep.file.sweep_file import SweepFile

__all__ = [
    "MEASURES",
    "SMALLER",
    "WRITTEN_FIELD",
    "Claim",
    "Evaluate",
    "Made",
    "Range",
    "Resources",
    "Search",
    "SizeName",
    "Stop",
    "SweepFile",
    "full_name",
]
