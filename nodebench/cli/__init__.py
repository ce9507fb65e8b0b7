"""The commands of `nodebench`; nothing outside this room prints."""

from nodebench.cli import inspect as inspect
from nodebench.cli import manage as manage
from nodebench.cli import measure as measure
from nodebench.cli import run as run
from nodebench.cli import share as share
from nodebench.cli import watch as watch
from nodebench.cli.app import command_line as command_line
