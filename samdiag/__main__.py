"""`python -m samdiag`."""

from samdiag.cli.app import main

main()
