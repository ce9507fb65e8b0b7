"""The command line: the verbs and everything that is printed, over `launch`."""

from nodebench.cli import sweeps as sweeps
from nodebench.cli import upkeep as upkeep
from nodebench.cli.app import main as main
