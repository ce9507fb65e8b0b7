"""The command line itself: the app with which commands register, and error exit statuses."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

import nodebench
from nodebench.cli.interrupt import INTERRUPTED, heed_interrupts, leave_on_interrupt
from nodebench.cli.stream import STDOUT, err, say, take_over
from nodebench.errors import InputError
from nodebench.planning.lookup import sweep_files
from nodebench.sweep.compose import meant_by

SET_HINT = ". To change a setting, write `--set PATH=VALUE`"
"""For users who write `train.epochs=2` without `--set`, which is Hydra's syntax."""

GUESSED = {
    "clean": "gc",
    "compare": "report --compare",
    "create": "init",
    "diff": "plan --diff",
    "download": "data",
    "list": "sweeps",
    "ls": "sweeps",
    "merge": "sync --from",
    "resume": "run",
    "show": "report",
    "train": "run",
    "validate": "plan",
}
"""Commands that nodebench does not have but other programs do -> ours."""

SWEEP_SUFFIXES = (".yaml", ".yml")
"""For users who give a sweep file without a command."""

SPINS = "5000"
"""How often an idle thread polls for work before it sleeps: about 0.1 ms. GNU's default is 3e5."""


HELP_PANELS: dict[str, tuple[str, ...]] = {
    "Prepare": ("init", "sweeps", "schema", "data", "doctor"),
    "Run": ("plan", "run", "status", "evaluate", "time"),
    "Look at results": ("report", "logs", "why", "repro", "scoreboard", "ui"),
    "Exchange and clean up": ("sync", "export", "import", "gc"),
}
"""Panels of `nodebench --help` -> their commands, in this order."""

PANEL_OF = {verb: panel for panel, verbs in HELP_PANELS.items() for verb in verbs}


class _Verbs(TyperGroup):
    """The group of commands; an interrupt ends any of them with one line and status 130."""

    def list_commands(self, ctx: Any) -> list[str]:
        """The names of the commands, in the order of the help."""
        return sorted(super().list_commands(ctx), key=list(PANEL_OF).index)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """A command, assigned to its help panel."""
        command: Any = super().get_command(ctx, cmd_name)
        if command is not None:
            command.rich_help_panel = PANEL_OF[cmd_name]
        return command

    def invoke(self, ctx: Any) -> Any:
        """Runs the requested command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            err.print("interrupted")
            raise typer.Exit(INTERRUPTED) from None
        except TyperException as error:
            if "extra argument" in error.message and "=" in error.message:
                error.message += SET_HINT
            if option := getattr(error, "option_name", None):
                self._suggest_settings(ctx, error, option)
            raise

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that the arguments begin with; typer suggests one for a misspelt name."""
        try:
            return super().resolve_command(ctx, args)
        except TyperException as error:
            is_sweep = args[0].endswith(SWEEP_SUFFIXES) or args[0] in sweep_files()
            meant = f"run {args[0]}" if is_sweep else GUESSED.get(args[0])
            if meant:
                error.message = f"No such command '{args[0]}'. Did you mean '{meant}'?"
            raise

    def _suggest_settings(self, ctx: Any, error: Any, option: str) -> None:
        """Suggests `--set train.epochs=VALUE` for `--epochs`, instead of similar options."""
        command = self.get_command(ctx, ctx.invoked_subcommand)
        takes_changes = command and any("--set" in param.opts for param in command.params)
        if takes_changes and (paths := meant_by(option.lstrip("-").replace("-", "_"))):
            error.possibilities = [f"--set {path}=VALUE" for path in paths]


app = typer.Typer(
    cls=_Verbs,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
NO_MEMORY = "failed to map segment"
"""The dynamic loader's message if it cannot get memory for a library."""


def _say_version(asked: bool) -> None:
    if asked:
        say(f"nodebench {nodebench.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_say_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Declarative sweeps and benchmarks for neural ODEs."""


def command_line() -> None:
    """The console script; turns errors into messages and exit statuses."""
    take_over()
    _have_a_home()
    let_idle_threads_sleep()
    heed_interrupts()
    try:
        _run()
    except KeyboardInterrupt:  # a second one, while the first was being handled
        sys.exit(INTERRUPTED)
    finally:
        leave_on_interrupt()
        _end_soon()


def let_idle_threads_sleep() -> None:
    """Makes torch's idle threads sleep sooner, since compiled kernels need their cores.

    The threads are those of GNU OpenMP, which torch bundles on Linux. OpenMP reads its settings
    when torch is loaded, so call this before importing torch.
    """
    if not any(name in os.environ for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")):
        os.environ["GOMP_SPINCOUNT"] = SPINS


def _run() -> None:
    """Runs the command; an error that the user can fix becomes a message and status 2."""
    try:
        # Users' own models and data sets are importable from the working folder.
        sys.path.append(_working_folder())
        try:
            app()
        finally:
            sys.stdout.flush()
    except InputError as error:
        _refuse(str(error))
    except OSError as error:  # a file or a device: for the user to fix
        if isinstance(error, BrokenPipeError) and error.filename == STDOUT:
            sys.exit(1)  # the reader has closed the pipe
        where = f"`{error.filename}`" if error.filename else "the system refused a request"
        _refuse(f"{where}: {error.strerror or error}")
    except (ImportError, MemoryError) as error:
        if isinstance(error, ImportError) and NO_MEMORY not in str(error):
            raise
        _refuse("the system refused memory: check `ulimit -v` and other running programs")
    except RuntimeError as error:
        if "start new thread" not in str(error):
            raise
        _refuse("the system refused another thread: check `ulimit -u` and other running programs")


def _end_soon() -> None:
    """Saves a second at exit, in which Python would collect garbage in all modules."""
    if "triton" not in sys.modules:  # triton would complain that it was not cleaned up
        gc.freeze()


def _have_a_home() -> None:
    """Sets HOME if there is no home folder; libraries ask for one but work without its files."""
    try:
        Path.home()
    except RuntimeError:  # a container's user who is not in /etc/passwd
        os.environ["HOME"] = "/nonexistent"


def _working_folder() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError as error:
        raise InputError("the working folder has been removed: `cd` to one that exists") from error


def _refuse(message: str) -> NoReturn:
    err.print(message, markup=False, highlight=False)
    sys.exit(2)
