"""Where the command line begins: `nodebench`, and `python -m nodebench`.

Nothing but Python itself is imported before an interrupt is heeded.
"""

from __future__ import annotations

import contextlib
import os
import signal
from typing import NoReturn


def main() -> None:
    """The command line; an interrupt ends it with a line and status 130, however early it comes."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)
    from nodebench.cli import main as command_line

    command_line()


def _leave(_signal: int, _frame: object) -> NoReturn:
    """Ends a process that has begun nothing yet.

    Raised inside an import, an exception may be swallowed, or come out as another.
    """
    with contextlib.suppress(OSError):
        os.write(2, b"interrupted before anything began\n")
    os._exit(130)


if __name__ == "__main__":
    main()
