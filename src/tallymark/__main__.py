"""The entry point of ``python -m tallymark``: the program ``tallymark``."""

from __future__ import annotations

import sys

__all__: list[str] = []

if __name__ == "__main__":
    # Ctrl-C while Python starts, or while it imports the package `tallymark` itself, cannot be
    # caught: it ends in a traceback, and nothing has been done.
    try:
        from .cli import main
    except KeyboardInterrupt:
        sys.stderr.write("tallymark: interrupted\n")
        sys.exit(130)
    sys.exit(main())
