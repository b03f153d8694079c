"""docs/how-to/testing.md: its blocks are files, on which pytest runs as a reader's does."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from plugin_runs import passed, run_folder

from documents import DOCUMENTS, fences

if TYPE_CHECKING:
    from pathlib import Path

    from stores import Store

BLOCKS = fences(DOCUMENTS["docs/how-to/testing.md"])
FILES = {
    block.content.split("\n", 1)[0][2:]: block.content for block in BLOCKS if block.info == "py"
}
(SETTINGS,) = (block.content for block in BLOCKS if block.info == "toml")
(COMMAND,) = (block.content.split() for block in BLOCKS if block.info == "sh")
#: Those of outages, once for each kind.
COUNT = sum(len(re.findall(r"def test_", text)) for text in FILES.values()) + 2 * 2


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in {**FILES, "pyproject.toml": SETTINGS}.items():
        assert re.fullmatch(r"\w+\.(py|toml)", name)
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def test_in_memory(folder: Path) -> None:
    passed(run_folder(folder), COUNT)


def test_on_a_server(folder: Path, redis_store: Store) -> None:
    assert COMMAND[:2] == ["pytest", "--tallymark-url"]
    passed(run_folder(folder, COMMAND[1], redis_store.url), COUNT)
    assert not redis_store.raw.dbsize()
