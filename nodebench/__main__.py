"""`python -m nodebench`."""

from __future__ import annotations

from nodebench.cli import main

main()
