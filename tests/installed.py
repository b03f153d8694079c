"""Use an installed tallymark: `python -I tests/installed.py [EXTRA]`, as `nox -s build` does.

For an environment with nothing but tallymark and that extra; without one, each extra has to be
missing, and to say so.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import importlib.resources
import importlib.util
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tallymark
from tallymark import MissingExtraError, StoreUnavailableError, SyncTally, Tally

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Nothing listens there.
NOWHERE = "redis://127.0.0.1:1/0"
EXAMPLES = Path(__file__).parent.parent / "examples"


def distributions(name: str, extras: frozenset[str] = frozenset()) -> set[str]:
    """Return the names of a distribution and all that it requires, where it is installed."""
    found = {normalized(name)}
    try:
        requires = importlib.metadata.requires(name) or []
    except importlib.metadata.PackageNotFoundError:
        return set()  # for other systems, or other versions of Python
    for requirement in requires:
        match = re.match(r"([\w.-]+)(?:\[([^\]]*)\])?", requirement)
        assert match is not None
        extra = re.search(r"""extra == ["']([^"']+)""", requirement)
        if extra is None or extra[1] in extras:
            found |= distributions(match[1], frozenset(re.findall(r"[\w-]+", match[2] or "")))
    return found


def normalized(name: str) -> str:
    """Return the name of a distribution as packaging compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def check_imports() -> None:
    """An import of tallymark loads redis-py, anyio, and what these require.

    redis-py imports some of the extras' packages where they are installed.
    """
    allowed = distributions("tallymark")
    assert {"redis", "hiredis", "anyio"} < allowed
    owners = importlib.metadata.packages_distributions()
    loaded = {module.partition(".")[0] for module in sys.modules}
    others = {module: owners[module] for module in loaded & owners.keys()}
    for module, names in others.items():
        assert {normalized(name) for name in names} <= allowed, (module, names)


def check_package() -> None:
    """The package says which version it is, and has types, and the plugin for pytest."""
    assert tallymark.__version__ == importlib.metadata.version("tallymark")
    assert importlib.resources.files("tallymark").joinpath("py.typed").is_file()
    (plugin,) = importlib.metadata.entry_points(group="pytest11", name="pytest_tallymark")
    assert plugin.value == "pytest_tallymark"
    assert importlib.util.find_spec(plugin.value) is not None


def check_without_a_server() -> None:
    """Calls end with a clear error."""
    with SyncTally.from_url(NOWHERE, timeout=0.2) as tally:
        with unavailable():
            tally.mark_event("active", 1)
        with unavailable():
            tally.count(tally.day("active"))

    async def main() -> None:
        async with Tally.from_url(NOWHERE, timeout=0.2) as tally:
            with unavailable():
                await tally.mark_event("active", 1)

    asyncio.run(main())


@contextlib.contextmanager
def unavailable() -> Iterator[None]:
    """Expect the error of a store that is away. There is no pytest."""
    try:
        yield
    except StoreUnavailableError as error:
        if "127.0.0.1:1" in str(error):
            return
        raise
    raise AssertionError("there is a server")


def program(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the program `tallymark` of this environment."""
    path = str(Path(sys.executable).parent / "tallymark")
    return subprocess.run([path, *arguments], capture_output=True, text=True, check=False)


def cli() -> None:
    """Ask the program for its version and its help."""
    done = program("--version")
    if "pip install 'tallymark[cli]'" in done.stderr:
        assert done.returncode == 2
        raise MissingExtraError(done.stderr)
    assert (done.returncode, done.stderr) == (0, ""), done
    assert tallymark.__version__ in done.stdout
    assert program("--help").returncode == 0


def memory() -> None:
    """Mark and read in the embedded store, also in scripts of Lua."""
    with SyncTally.from_url("memory://") as tally:
        assert tally.mark_event("active", 1)
        assert tally.mark_many("active", range(2, 5))
        assert tally.unmark_event("active", 1, exact=True)
        assert list(tally.users(tally.day("active"))) == [2, 3, 4]


def numpy() -> None:
    """Reckon with the bits of bitmaps: with numpy, or with the ints of Python."""
    from tallymark._reading.bits import algebra

    if type(algebra()).__name__ == "Ints":
        raise MissingExtraError("numpy")


def pandas() -> None:
    """Make a data frame."""
    frame = batch().to_pandas()
    assert list(frame["user_id"]) == [1, 2]


def batch() -> Any:
    """Return some users of a flag."""
    return tallymark.Batch("premium", tallymark.Granularity.UNIQUE, None, [1, 2])


def otel() -> None:
    """Import the metrics."""
    import tallymark.otel

    assert tallymark.otel.__all__


def bitmapist() -> None:
    """Make the form of the drop-in."""
    from tallymark.bitmapist.cohort_pages import _form

    assert _form().name == "cohort_form.html"


def import_() -> None:
    """Count the rows of a file, and send nothing."""
    with tempfile.TemporaryDirectory() as folder:
        done = program(
            *("import", str(EXAMPLES / "shop_events.csv"), "--dry-run", "--folder", folder),
            *("--map", "event=event", "user=user_id", "time=time", "--url", NOWHERE),
            *("--user-ids", "str"),
        )
    if "tallymark[" in done.stderr:
        raise MissingExtraError(done.stderr)
    assert done.returncode == 0, done


EXTRAS: dict[str, Callable[[], None]] = {
    "bitmapist": bitmapist,
    "cli": cli,
    "import": import_,
    "memory": memory,
    "numpy": numpy,
    "otel": otel,
    "pandas": pandas,
}


def main(chosen: str = "") -> None:
    """Check the package, and one extra; without one, that all are missing."""
    provided = importlib.metadata.metadata("tallymark").get_all("Provides-Extra")
    assert sorted(EXTRAS) == sorted(provided or ())
    if chosen:
        EXTRAS[chosen]()
        return
    check_imports()
    check_package()
    check_without_a_server()
    for use in EXTRAS.values():
        check_missing(use)


def check_missing(use: Callable[[], None]) -> None:
    """Something needs an extra, and says so."""
    with contextlib.suppress(MissingExtraError):
        use()
        raise AssertionError(f"{use.__name__} works without its extra")


if __name__ == "__main__":
    main(*sys.argv[1:])
