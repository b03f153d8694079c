"""CONTRIBUTING.md names files and classes that exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "CONTRIBUTING.md").read_text()


def test_every_file_that_it_names_exists() -> None:
    named = re.findall(r"`((?:_?[a-z_]+/)+(?:[a-z_]+\.py)?|[a-z_]+\.py)`", TEXT)
    assert len(set(named)) > 20
    for name in named:
        in_package, at_top = ROOT / "src/tallymark" / name, ROOT / name
        assert in_package.exists() or at_top.exists(), name


def test_every_class_is_in_the_file_that_is_named_with_it() -> None:
    """As in "`_marking/sizing.py`, `BatchSizer`"."""
    pairs = re.findall(r"`(_[a-z]+/[a-z_]+\.py)`,\s+`(\w+)(?:\.(\w+))?`", TEXT)
    assert len(pairs) > 8
    for name, thing, method in pairs:
        source = (ROOT / "src/tallymark" / name).read_text()
        assert re.search(rf"(class|def) {thing}\b", source), (name, thing)
        assert not method or re.search(rf"def {method}\b", source), (name, method)
