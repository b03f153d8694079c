"""Runs of pytest of their own, which find the plugin by its entry point, as a user's does."""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
#: Without it, pytest-asyncio warns.
SCOPE = ("-o", "asyncio_default_fixture_loop_scope=function")


def run(
    folder: Path, tests: str, *arguments: str, installed: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run pytest on a module, with every warning an error.

    Arguments:
        folder: for the module. It has no configuration, and no parent with one.
        tests: the module.
        arguments: more of pytest's.
        installed: a folder with packages.
    """
    (folder / "test_app.py").write_text(tests, encoding="utf-8")
    return run_folder(folder, *arguments, installed=installed)


def run_folder(
    folder: Path, *arguments: str, installed: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run pytest in a folder, with every warning an error."""
    scope = () if "no:asyncio" in arguments else SCOPE
    path = filter(None, (installed, *_distribution(folder), str(ROOT / "src")))
    # Not the number of a worker of pytest-xdist that runs this test.
    env = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    # -I would hide PYTHONPATH.
    return subprocess.run(
        [
            *(sys.executable, "-W", "error", "-m", "pytest", "-q", "-W", "error"),
            *("-p", "no:valkey", "-p", "no:cacheprovider", *scope, *arguments),
        ],
        cwd=folder,
        env={**env, "PYTHONPATH": os.pathsep.join(path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


def passed(done: subprocess.CompletedProcess[str], count: int) -> None:
    """Check that all tests have passed."""
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{count} passed" in done.stdout


def _distribution(folder: Path) -> list[str]:
    """Return a folder with the metadata that an installation writes, if there is none."""
    if importlib.metadata.entry_points(group="pytest11", name="pytest_tallymark"):
        return []
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (table,) = re.findall(
        r'^\[project\.entry-points\.pytest11\]\n((?:\w+ = ".*"\n)+)', project, re.MULTILINE
    )
    metadata = folder.parent / f"{folder.name}-installed" / "tallymark-0.dist-info"
    metadata.mkdir(parents=True, exist_ok=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: tallymark\nVersion: 0\n")
    (metadata / "entry_points.txt").write_text("[pytest11]\n" + table.replace('"', ""))
    return [str(metadata.parent)]
