"""The entry point of ``python -m tallymark``: the program ``tallymark``."""

from __future__ import annotations

import sys

from .cli import main

__all__: list[str] = []

if __name__ == "__main__":
    sys.exit(main())
