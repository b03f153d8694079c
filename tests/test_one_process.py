"""With TALLYMARK_TEST_REDIS_URL there is one server for all tests, and so one process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from servers import running_server

ROOT = Path(__file__).parents[1]


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "several",
    [
        ("-n", "2", "--dist", "worksteal"),
        ("--tx", "2*popen", "--dist", "load"),
        ("--tx", "2*popen", "-d"),
    ],
    ids=" ".join,
)
def test_tests_on_a_given_server_do_not_share_it(several: tuple[str, ...]) -> None:
    """As `nox -s tests` runs them; these flush the database, and end all connections."""
    with running_server() as url:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "pytest", *several),
                *("-p", "no:cacheprovider", "tests/drivers/test_wire.py"),
            ],
            cwd=ROOT,
            env={**os.environ, "TALLYMARK_TEST_REDIS_URL": f"{url[:-1]}3"},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stdout
    assert "one process instead of several" in done.stdout
    assert "2 workers" not in done.stdout
