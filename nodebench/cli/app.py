"""The command line itself: where the verbs are hung, and how anything is said."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from typer.core import TyperGroup

import nodebench
from nodebench.cli.stream import STDOUT, take_over
from nodebench.errors import InputError


class _Verbs(TyperGroup):
    """The verbs, of which an interrupt ends each with a line and its status."""

    def invoke(self, ctx: Any) -> Any:
        """Runs the verb that was asked for."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            err.print("interrupted")
            raise typer.Exit(INTERRUPTED) from None


app = typer.Typer(
    cls=_Verbs,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
out = Console(soft_wrap=True)
err = Console(stderr=True, soft_wrap=True)

INTERRUPTED = 130

NO_MEMORY = "failed to map segment"
"""What the loader says of a library for which there is no memory."""


def _say_version(asked: bool) -> None:
    if asked:
        say(f"nodebench {nodebench.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    """Declarative sweeps and benchmarks for neural ODEs."""


def command_line() -> None:
    """The console script: our errors become messages, and exit statuses say how it went."""
    take_over()
    _have_a_home()
    _heed_signals()
    try:
        _run()
    except KeyboardInterrupt:  # once more, while the first was answered
        sys.exit(INTERRUPTED)
    finally:
        if signal.getsignal(signal.SIGINT) is _interrupt:
            signal.signal(signal.SIGINT, _leave)


def _run() -> None:
    """The verb; what is the user's to mend becomes a message and status 2."""
    try:
        # A user's own models and data sets are importable from where they start nodebench.
        sys.path.append(_working_folder())
        try:
            app()
        finally:
            sys.stdout.flush()
    except InputError as error:
        _refuse(str(error))
    except OSError as error:  # a file or a device: the user's to mend, and no fault of ours
        if isinstance(error, BrokenPipeError) and error.filename == STDOUT:
            sys.exit(1)  # whoever read us has read enough
        where = f"`{error.filename}`" if error.filename else "the system refused what was asked"
        _refuse(f"{where}: {error.strerror or error}")
    except (ImportError, MemoryError) as error:
        if isinstance(error, ImportError) and NO_MEMORY not in str(error):
            raise
        _refuse("the system refused memory: see `ulimit -v`, and what runs already")
    except RuntimeError as error:
        if "start new thread" not in str(error):
            raise
        _refuse("the system refused another thread: see `ulimit -u`, and what runs already")


def _heed_signals() -> None:
    """Makes a KeyboardInterrupt of every request to end, unless it is to be ignored."""
    signal.signal(signal.SIGTERM, _interrupt)
    for number in (signal.SIGINT, signal.SIGHUP):  # of a shell's background, and of `nohup`
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)


def _have_a_home() -> None:
    """Names a home folder where there is none; libraries ask for it, and do without its files."""
    try:
        Path.home()
    except RuntimeError:  # a container's user without an entry in its list of users
        os.environ["HOME"] = "/nonexistent"


def _working_folder() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError as error:
        raise InputError("the working folder has been removed: `cd` to one that exists") from error


def _refuse(message: str) -> NoReturn:
    err.print(message, markup=False, highlight=False)
    sys.exit(2)


def say(text: str) -> None:
    """Prints a line on stdout."""
    print(text, flush=True)


def _interrupt(_signal: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _leave(_signal: int, _frame: object) -> None:
    """Ends a process that has told all and is only clearing up."""
    os._exit(INTERRUPTED)
