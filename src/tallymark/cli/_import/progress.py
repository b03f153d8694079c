"""How far an import is: a bar on a terminal, else a line now and then, on the standard error."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Final

import duckdb

from .._errors import warn
from .._signals import noticed_signals

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Progress"]

#: How many seconds are between two lines, and between two looks at a query.
_BETWEEN_LINES: Final = 10.0
_BETWEEN_LOOKS: Final = 0.2


class Progress:
    """Shows the steps of an import."""

    def __init__(self, *, shown: bool) -> None:
        """Begin.

        Arguments:
            shown: whether to show anything.
        """
        self._shown = shown
        self._bar: Any = None
        self._next_line = time.monotonic() + _BETWEEN_LINES

    @contextlib.contextmanager
    def step(self, title: str, total: float, unit: str) -> Iterator[Step]:
        """Yield a step.

        Arguments:
            title: what is done.
            total: how much there is to do.
            unit: of what; nothing if it is only a part of 1.
        """
        if not self._shown or not sys.stderr.isatty():
            yield Step(self, title, total, unit)
            return
        from rich.console import Console  # noqa: PLC0415 - takes 40 ms
        from rich.progress import (  # noqa: PLC0415
            BarColumn,
            TextColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as Bar  # noqa: PLC0415

        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}% {task.fields[rate]}", markup=False),
            TimeRemainingColumn(),
        )
        with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(title, total=total, rate="")
            self._bar = (bar, task)
            try:
                yield Step(self, title, total, unit)
            finally:
                self._bar = None

    def show(self, step: Step) -> None:
        """Show how far a step is."""
        rate = step.rate()
        per_second = f"{rate:,.0f} {step.unit}/s" if rate and step.unit else ""
        if self._bar is not None:
            bar, task = self._bar
            bar.update(task, completed=step.done, rate=per_second)
        elif self._shown and time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + _BETWEEN_LINES
            part = step.done / step.total if step.total else 1.0
            left = f", {(step.total - step.done) / rate:.0f} s left" if rate else ""
            warn(f"{step.title}: {part:.0%}{per_second and ', '}{per_second}{left}")


class Step:
    """A step of an import.

    Attributes:
        title, total, unit: as in `Progress.step`.
        done: how much of it is done.
    """

    def __init__(self, progress: Progress, title: str, total: float, unit: str) -> None:
        """Begin."""
        self._progress = progress
        self.title = title
        self.total = total
        self.unit = unit
        self.done = 0.0
        self._begun = time.monotonic()
        self._from = 0.0

    def begin_at(self, done: float) -> None:
        """Begin with a part that was done before, and took no time now."""
        self._from = self.done = done

    def advance(self, done: float) -> None:
        """Show that so much is done."""
        self.done = done
        self._progress.show(self)

    def rate(self) -> float:
        """Return how much is done in a second; 0 at the beginning."""
        seconds = time.monotonic() - self._begun
        return (self.done - self._from) / seconds if seconds > _BETWEEN_LOOKS else 0.0

    @contextlib.contextmanager
    def query(self, connection: duckdb.DuckDBPyConnection, size: float) -> Iterator[None]:
        """Show how far the queries of a block are, which together do ``size``.

        Raises:
            KeyboardInterrupt: at Ctrl-C, whatever DuckDB makes of it.
        """
        begin, ended = self.done, threading.Event()

        def look() -> None:
            while not ended.wait(_BETWEEN_LOOKS):
                if interrupted.is_set():
                    connection.interrupt()
                with contextlib.suppress(duckdb.Error):
                    percent = connection.query_progress()
                    self.advance(begin + size * max(0.0, min(percent, 100.0)) / 100)

        thread = threading.Thread(target=look, name="tallymark-import-progress", daemon=True)
        with noticed_signals() as interrupted:
            thread.start()
            try:
                yield
            except BaseException:
                if interrupted.is_set():
                    raise KeyboardInterrupt from None
                raise
            finally:
                ended.set()
                thread.join()
            if interrupted.is_set():
                raise KeyboardInterrupt
        self.advance(begin + size)
