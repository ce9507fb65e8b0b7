"""`python -m nodebench`."""

from nodebench.cli import main

main()
