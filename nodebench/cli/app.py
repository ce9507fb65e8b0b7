"""The command line itself: where the verbs are hung, and how anything is said."""

from __future__ import annotations

import os
import signal
import sys

import typer
from rich.console import Console

from nodebench.errors import InputError

app = typer.Typer(
    help="Declarative sweeps and benchmarks for neural ODEs.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
out = Console(soft_wrap=True)
err = Console(stderr=True, soft_wrap=True)

INTERRUPTED = 130


def main() -> None:
    """The console script: our errors become messages, and exit statuses say how it went."""
    # A user's own models and data sets are importable from where they start nodebench.
    sys.path.append(os.getcwd())
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        app()
    except InputError as error:
        err.print(str(error), markup=False, highlight=False)
        sys.exit(2)


def say(text: str) -> None:
    """Prints a line on stdout."""
    print(text, flush=True)


def _interrupt(_signal: int, _frame: object) -> None:
    raise KeyboardInterrupt
