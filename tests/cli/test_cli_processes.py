"""The program as a process: Ctrl-C, closed pipes, `python -m`, a missing extra, imports."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from terminals import Terminals

from tallymark import cli

if TYPE_CHECKING:
    from pathlib import Path

    from stores import Store

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")

SECRET = "s3cret"
PROGRAM = [sys.executable, "-m", "tallymark"]


def started(url: str, *words: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*PROGRAM, "--url", url, *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_ctrl_c_during_a_request() -> None:
    """A server has taken the connection, and does not answer, when the signal comes."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(30)
        url = f"redis://:{SECRET}@127.0.0.1:{server.getsockname()[1]}/0"
        process = started(url, "mark", "active", "1", "--timeout", "60")
        connection, _ = server.accept()
        with connection:
            assert connection.recv(10)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (130, b"", b"tallymark: interrupted\n")


def test_ctrl_c_before_all_ids_are_read_marks_nobody(redis_store: Store) -> None:
    process = started(redis_store.url, "mark-many", "active", "-")
    assert process.stdin is not None
    process.stdin.write(b"1\n2\n" * 50_000)  # more than a pipe holds: it is being read
    process.stdin.flush()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err == b"tallymark: interrupted\n"
    assert redis_store.names() == set()


def test_a_closed_pipe_ends_quietly(redis_store: Store, tmp_path: Path) -> None:
    ids = tmp_path / "ids.txt"
    ids.write_text("\n".join(map(str, range(100_000))), encoding="utf-8")
    process = started(redis_store.url, "mark-many", "active", str(ids), "--at", "2026-01-05")
    assert process.communicate(timeout=30)[1] == b""
    for form in ([], ["--csv"], ["--json"]):
        with started(redis_store.url, "users", "active", "--month", "2026-01", *form) as process:
            assert process.stdout is not None
            assert process.stdout.read(1)
            process.stdout.close()
            assert process.stderr is not None
            assert process.stderr.read() == b""
            assert process.wait(timeout=30) == 0


#: Raises Ctrl-C in the import of a module.
INTERRUPTED = """
import signal, sys
class Finder:
    def find_spec(self, name, *_):
        if name == {module!r}:
            signal.raise_signal(signal.SIGINT)
sys.meta_path.insert(0, Finder())
sys.argv = ["tallymark", "count", "active", "--url", "memory://"]
"""
RUN = "import runpy; runpy.run_module('tallymark', run_name='__main__', alter_sys=False)"


@pytest.mark.parametrize("module", ["tallymark.cli", "tallymark.cli._app", "cyclopts", "fakeredis"])
def test_ctrl_c_while_the_program_starts(module: str) -> None:
    program = f"{INTERRUPTED.format(module=module)}\n{RUN}"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "tallymark: interrupted\n")


def test_ctrl_c_in_a_callback() -> None:
    """Python drops exceptions of callbacks: the program would go on."""
    program = (
        "import signal, sys, weakref\n"
        "from tallymark.cli import _app, main\n"
        "class Thing: pass\n"
        "def run(words):\n"
        "    thing = Thing()\n"
        "    link = weakref.ref(thing, lambda _: signal.raise_signal(signal.SIGINT))\n"
        "    del thing\n"
        "    print('went on')\n"
        "    return 0\n"
        "_app.run = run\n"
        "sys.argv = ['tallymark', 'count', 'a']\n"
        "sys.exit(main())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "tallymark: interrupted\n")


def test_without_the_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "cyclopts", None)
    assert cli.main(["count", "active"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == (
        "tallymark: the program needs cyclopts, which is not installed; run: "
        "pip install 'tallymark[cli]'\n"
    )


def test_help_and_scripts_import_no_more_than_they_need() -> None:
    """`rich` takes nearly a tenth of a second, reports as much."""
    program = (
        "import sys; from tallymark.cli import main\n"
        "assert main(['--help']) == 0\n"
        "assert main(['count', 'active', '--url', 'memory://']) == 0\n"
        "assert 'rich.table' not in sys.modules, sorted(sys.modules)\n"
        "assert 'tallymark._reports.retention' not in sys.modules\n"
        "assert 'tallymark.cli._reports' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL)


def test_a_terminal_without_colours(redis_store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "reader"
    folder.mkdir()
    with Terminals(folder, {"TALLYMARK_URL": redis_store.url}) as terminals:
        shown, code = terminals.run("tallymark count a b | cat; NO_COLOR=1 tallymark count a b")
        assert code == 0
        assert "\x1b" not in terminals.output
        assert shown.count("what") == 2
        terminals.run("tallymark count a b")
        assert "\x1b[1m" in terminals.output
