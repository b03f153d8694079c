"""Fixtures for pytest: a store of its own for each test, tallies on it, and outages.

A plugin that every run of pytest imports where tallymark is installed: so it is no part of the
package, and imports tallymark at the first use of a fixture.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tallymark import SyncTally, Tally
    from tallymark.integrations.testing import Outage
    from tallymark.integrations.testing.servers import Database

__all__ = ["sync_tally", "tally", "tally_options", "tally_url", "tallymark_outage"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--tallymark-url`` and its setting."""
    text = (
        "the URL of an empty database of a Redis server for the tests, which flush it; "
        "worker n of pytest-xdist takes the database n numbers after it"
    )
    parser.getgroup("tallymark").addoption("--tallymark-url", metavar="URL", help=text)
    parser.addini("tallymark_url", text, default="")


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line(
        "markers",
        "tallymark(**options): the options of the fixtures tally and sync_tally, and of the "
        "default tallies: user_ids and those of tallymark.TallyOptions",
    )


@pytest.fixture
def tally_options(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Return the options of the tallies of this test: those of its markers ``tallymark``."""
    options: dict[str, Any] = {}
    for marker in reversed(list(request.node.iter_markers("tallymark"))):
        if marker.args:
            raise pytest.UsageError("the marker tallymark takes keyword arguments only")
        options.update(marker.kwargs)
    return options


@pytest.fixture(scope="session")
def _tallymark_database(pytestconfig: pytest.Config) -> Iterator[Database | None]:
    """Yield the database of ``--tallymark-url``, claimed for this process."""
    url = pytestconfig.getoption("--tallymark-url") or pytestconfig.getini("tallymark_url")
    if not url or url == "memory://":
        yield None
        return
    from tallymark.integrations import testing  # noqa: PLC0415 - at its first use

    with testing.database(url) as database:
        yield database


@pytest.fixture
def _tallymark_store(
    request: pytest.FixtureRequest,
    _tallymark_database: Database | None,
    tally_options: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[tuple[str, Any]]:
    """Yield the URL of an empty store, and its faults; the default tallies use the store."""
    from tallymark.integrations import testing  # noqa: PLC0415 - at its first use

    store = (
        testing.embedded()
        if _tallymark_database is None
        else testing.on_server(
            _tallymark_database, failing="tallymark_outage" in request.fixturenames
        )
    )
    with store as (url, faults), testing.real_clocks():
        monkeypatch.setenv("TALLYMARK_URL", url)
        with testing.default_tallies(url, tally_options):
            yield url, faults


@pytest.fixture
def tally_url(_tallymark_store: tuple[str, Any]) -> str:
    """Return the URL of a store that is empty, and this test's alone.

    The default tallies use it too, and the variable ``TALLYMARK_URL`` has it.
    """
    return _tallymark_store[0]


@pytest.fixture
def tally(tally_url: str, tally_options: dict[str, Any]) -> Iterator[Tally[Any]]:
    """Yield a `Tally` on the store of this test, and close it."""
    from tallymark import Tally  # noqa: PLC0415 - at its first use
    from tallymark.integrations import testing  # noqa: PLC0415

    made: Tally[Any] = Tally.from_url(tally_url, **tally_options)
    yield made
    testing.close(made)


@pytest.fixture
def sync_tally(tally_url: str, tally_options: dict[str, Any]) -> Iterator[SyncTally[Any]]:
    """Yield a `SyncTally` on the store of this test, and close it."""
    from tallymark import SyncTally  # noqa: PLC0415 - at its first use

    made: SyncTally[Any] = SyncTally.from_url(tally_url, **tally_options)
    with made:
        yield made


@pytest.fixture
def tallymark_outage(_tallymark_store: tuple[str, Any]) -> Outage:
    """Return a function that makes the store of this test fail for a ``with`` block."""
    from tallymark.integrations.testing import Outage  # noqa: PLC0415 - at its first use

    faults = _tallymark_store[1]
    if faults is None:
        raise pytest.UsageError(
            "with a server, a test has to request tallymark_outage by an argument or "
            "pytest.mark.usefixtures: its connections go through a proxy from the beginning"
        )
    return Outage(faults)
