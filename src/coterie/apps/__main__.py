"""`python -m coterie.apps` is the command `coterie`."""

from __future__ import annotations

from coterie.apps.cli import main

main()
