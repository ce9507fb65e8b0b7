"""The command line: the verbs and everything that is printed, over `launch`."""

from nodebench.cli import looking as looking
from nodebench.cli import running as running
from nodebench.cli import upkeep as upkeep
from nodebench.cli.app import main as main
