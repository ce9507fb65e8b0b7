"""Every error a user can meet.

NodebenchError
├── InputError             something the user can fix; the command line exits with 2
│   ├── SweepError         mistakes in a sweep file, all of them at once
│   ├── DataError          a data set is missing, damaged or cannot be fetched
│   ├── ResourceError      the machine or the cluster does not have what was asked for
│   ├── StoreError         a store, a report's folder or an archive cannot be used
│   ├── FieldError         a user's own right-hand side is invalid, or does not suit its gradient
│   └── TrackingError      MLflow cannot be reached, or does not have what was asked for
└── TrialFailure           the outcome of one trial; the sweep continues
    ├── Diverged           a loss or a state that is not finite
    ├── NotConverged       an implicit method's iteration gave up
    ├── StepUnderflow      an adaptive solver's step fell below the resolution of time
    ├── RandomField        an ODE's f gives two values for one input
    ├── EvaluationLimit    a solve needed more evaluations than `limits.nfe`
    └── DeadlineExceeded   the trial took longer than `limits.minutes`

Running out of memory, a search that stops a trial and an error of the code are outcomes without
an exception of their own.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar
from urllib.parse import unquote

LONGEST_SHOWN = 100
"""The most characters of a user's text that a message shows."""


class NodebenchError(Exception):
    """The base of every error that this package raises on purpose; messages hide passwords."""

    def __init__(self, message: str = ""):
        super().__init__(masked(message))


class InputError(NodebenchError):
    """Something that the user can fix: a file, a setting, the machine."""


@dataclass(frozen=True, order=True)
class Fault:
    """One mistake: its YAML path or line, what is wrong, what is allowed and what to do."""

    where: str
    what: str
    excerpt: tuple[str, ...] = ()
    """The offending line of the file, and a line that marks the place in it."""

    line: int | None = field(default=None, compare=False)
    """The number of the file's line that a YAML path leads to, if it is known."""

    def __str__(self) -> str:
        line = f" (line {self.line})" if self.line else ""
        return f"{_beginning(self.where)}{line}: {self.what}"


class SweepError(InputError):
    """All mistakes in one sweep file; `changes` are those given with --set, if any."""

    def __init__(self, source: str, faults: Iterable[Fault], changes: Iterable[str] = ()):
        self.source = source
        self.faults = sorted(set(faults))
        set_ = "".join(f" --set {shown(text)}" for text in changes)
        title = f"{source}{set_}: {counted(len(self.faults), 'mistake')}"
        lines = [text for fault in self.faults for text in (f"  {fault}", *fault.excerpt)]
        super().__init__("\n".join([title, *lines]))


class DataError(InputError):
    """A data set is missing, damaged, or cannot be fetched."""


class ResourceError(InputError):
    """The machine or the cluster does not have what the sweep asks for."""


class StoreError(InputError):
    """A store, a report's folder or an archive cannot be used, due to its content or holder."""


class FieldError(InputError):
    """A user's own right-hand side is invalid, or does not suit the gradient method."""


class TrackingError(InputError):
    """MLflow cannot be reached, or does not have what was asked for."""


class TrialOutcome(StrEnum):
    """How a trial ended, as written to stores, tables and MLflow."""

    FINISHED = "finished"
    DIVERGED = "diverged"
    NOT_CONVERGED = "not-converged"
    UNDERFLOW = "underflow"
    RANDOM_FIELD = "random"
    EVALUATION_LIMIT = "nfe"
    DEADLINE = "deadline"
    OUT_OF_MEMORY = "out-of-memory"
    STOPPED = "stopped"
    ERROR = "error"
    """A crash of the code, which is not a result."""


class TrialFailure(NodebenchError):
    """A failure of one trial. It is a result: it is recorded and shown, and the sweep continues."""

    outcome: ClassVar[TrialOutcome]


class Diverged(TrialFailure):
    """A loss or an ODE's state became infinite or not a number."""

    outcome = TrialOutcome.DIVERGED


class NotConverged(TrialFailure):
    """The iteration inside a step of an implicit method did not converge."""

    outcome = TrialOutcome.NOT_CONVERGED


class StepUnderflow(TrialFailure):
    """The error control asked for steps below the resolution of time."""

    outcome = TrialOutcome.UNDERFLOW


class RandomField(TrialFailure):
    """An ODE's f gives two values for the same input, which an adaptive solver cannot handle."""

    outcome = TrialOutcome.RANDOM_FIELD


class EvaluationLimit(TrialFailure):
    """One solve needed more evaluations of the right-hand side than `limits.nfe`."""

    outcome = TrialOutcome.EVALUATION_LIMIT


class DeadlineExceeded(TrialFailure):
    """A trial took longer than `limits.minutes`."""

    outcome = TrialOutcome.DEADLINE


def shown(value: object) -> str:
    """A value as messages show it: in backticks, and cut if it is long."""
    return f"`{_beginning(str(value))}`"


def _beginning(text: str) -> str:
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}…"


def counted(number: int, noun: str) -> str:
    """`1 trial`, `3 trials`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


MOST_LISTED = 6


def shortened(names: Iterable[str]) -> str:
    """Names in backticks; of very many, the first ones and how many more there are."""
    listed = [f"`{name}`" for name in names]
    more = len(listed) - MOST_LISTED
    return ", ".join(listed[:MOST_LISTED]) + (f" and {more} more" if more > 0 else "")


def unknown(word: object, kind: str, known: Iterable[str], meant: str | None = None) -> str:
    """A message that `word` is not a known `kind`, with the one that was meant and all known ones.

    By default, the one that was meant is the most similar one, if any is similar.
    """
    names = list(known)
    likely = similar(word, names) if meant is None else [meant]
    hint = "".join(f" Did you mean `{name}`?" for name in likely)
    return f"{shown(word)} is not a known {kind}.{hint} Known: {', '.join(names)}."


ELSEWHERE = {"learning_rate": "lr", "none": "nf"}
"""Words that other programs use -> ours."""


def similar(word: object, known: Iterable[str]) -> list[str]:
    """The known word that is most similar, ignoring case, as a list; empty if none is similar."""
    text, names = str(word)[:LONGEST_SHOWN].lower(), list(known)
    ours = ELSEWHERE.get(text, text)
    ending = [name for name in names if name.rpartition(".")[2] == ours]
    if len(ending) == 1:
        return ending
    likeness = [max(_ratio(text, end) for end in _ends(name.lower())) for name in names]
    best = max(likeness, default=0.0)
    return [names[likeness.index(best)]] if best >= 0.5 else []


def _ratio(text: str, other: str) -> float:
    return difflib.SequenceMatcher(None, text, other).ratio()


def _ends(name: str) -> Iterator[str]:
    """A name, and what is left of it without its first words: `test_error` and `error`."""
    while name:
        yield name
        name = name.partition("_")[2]


# -------------------------------------------------------------------------------- hiding passwords

MASK = "***"

_OF_ADDRESSES = re.compile(r"(?<=://)[^\s/?#@:'\"`<>]*(?::[^\s/?#'\"`<>]*)?@")
_OF_QUERIES = re.compile(
    r"(?i)([?&;](?:\w*password|passwd|pwd|\w*token|\w*secret|\w*_key)=)[^\s&#;'\"`<>]+"
)
_BY_NAME = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")
_SHORTEST = 4
"""Passwords with fewer characters are not searched for: they would match ordinary text."""


def masked(text: str) -> str:
    """A text with passwords masked: those in its addresses, and those of this process.

    A user name is kept if a password follows it. A user name alone may be a token and is masked.
    """
    for secret in _secrets():  # only as a whole word: it may be part of another word
        text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", MASK, text)
    text = _OF_ADDRESSES.sub(_without_password, text)
    return _OF_QUERIES.sub(rf"\g<1>{MASK}", text)


def _without_password(found: re.Match[str]) -> str:
    user, colon, _ = found[0].removesuffix("@").partition(":")
    return f"{user}:{MASK}@" if colon else f"{MASK}@"


def _secrets() -> list[str]:
    """The secrets in this process's environment variables, as written and URL-decoded."""
    found = [value for name in _BY_NAME if (value := os.environ.get(name, "").strip())]
    scheme, _, address = (os.environ.get("MLFLOW_TRACKING_URI", "").strip()).partition("://")
    # Up to the last @: a password may contain an @, though it should be escaped.
    user_info, at, _ = address.partition("?")[0].rpartition("@")
    user, _, password = user_info.partition(":")
    if at and not password and scheme.startswith("http") and "/" not in user:
        password = user  # a token
    found += [password] if at else []
    return [s for secret in found for s in {secret, unquote(secret)} if len(s) >= _SHORTEST]
