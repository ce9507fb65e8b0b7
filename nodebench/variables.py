"""Environment variables, and the passwords in them, which nothing that is written shows."""

from __future__ import annotations

import os
import re
from urllib.parse import unquote

HIDDEN = "***"

_OF_ADDRESSES = re.compile(r"(?<=://)[^\s/?#@:'\"`<>]*(?::[^\s/?#'\"`<>]*)?@")
_OF_QUERIES = re.compile(
    r"(?i)([?&;](?:\w*password|passwd|pwd|\w*token|\w*secret|\w*_key)=)[^\s&#;'\"`<>]+"
)
_BY_NAME = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")
_SHORTEST = 4
"""Characters of a password that is hidden wherever it stands; shorter ones are parts of words."""


def variable(name: str) -> str | None:
    """A variable without blanks around it; None where it is not set, empty or blank."""
    return os.environ.get(name, "").strip() or None


def masked(text: str) -> str:
    """A text without the passwords of the addresses in it, and without those of this process.

    A user name stays; one that stands alone may be a token.
    """
    for secret in _secrets():  # as a word: it may be part of another
        text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", HIDDEN, text)
    text = _OF_ADDRESSES.sub(_without_password, text)
    return _OF_QUERIES.sub(rf"\g<1>{HIDDEN}", text)


def _without_password(found: re.Match[str]) -> str:
    user, colon, _ = found[0].removesuffix("@").partition(":")
    return f"{user}:{HIDDEN}@" if colon else f"{HIDDEN}@"


def _secrets() -> list[str]:
    """What is secret in this process's variables, as written and as quoted by others."""
    found = [value for name in _BY_NAME if (value := variable(name))]
    scheme, _, address = (variable("MLFLOW_TRACKING_URI") or "").partition("://")
    # Up to the last @: a password may have any character in it, though it should be escaped.
    user_info, at, _ = address.partition("?")[0].rpartition("@")
    user, _, password = user_info.partition(":")
    if at and not password and scheme.startswith("http") and "/" not in user:
        password = user  # a token
    found += [password] if at else []
    return [s for secret in found for s in {secret, unquote(secret)} if len(s) >= _SHORTEST]
