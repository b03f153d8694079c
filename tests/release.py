"""Check the files of a release: `python tests/release.py SDIST WHEEL`, as `nox -s build` does."""

from __future__ import annotations

import sys
import tarfile
import zipfile
from pathlib import Path

#: What has to be in an sdist, beside the modules of the wheel.
IN_SDIST = (
    *("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "LICENSE", "pyproject.toml"),
    *("noxfile.py", "tests/conftest.py", "examples/quickstart.py", "examples/shop_events.csv"),
)
JUNK = (".pyc", ".rdb", ".coverage", "/__pycache__", "/.git/", "/.venv", "/.nox", "_cache/")


def problems(sdist: set[str], wheel: set[str], metadata: str) -> list[str]:
    """Return what is wrong with the names of the files, and the metadata of the wheel."""
    modules = {name for name in wheel if ".dist-info/" not in name}
    found = [f"sdist: no {name}" for name in IN_SDIST if name not in sdist]
    found += [f"sdist: no src/{name}" for name in sorted(modules) if f"src/{name}" not in sdist]
    found += [f"wheel: no {name}" for name in ("tallymark/py.typed", "pytest_tallymark.py")
              if name not in modules]  # fmt: skip
    found += [
        f"wheel: {name}"
        for name in sorted(modules)
        if not name.startswith("tallymark/") and name != "pytest_tallymark.py"
    ]
    found += [f"junk: {n}" for n in sorted(sdist | wheel) if any(part in f"/{n}" for part in JUNK)]
    if not any(name.endswith("licenses/LICENSE") for name in wheel):
        found.append("wheel: no LICENSE")
    found += [f"README: {part} is relative" for part in metadata.split("](")[1:]
              if not part.startswith("https://")]  # fmt: skip
    return found


def main() -> None:
    """Print what is wrong, and fail if anything is."""
    (sdist,) = (Path(name) for name in sys.argv[1:] if name.endswith(".tar.gz"))
    (wheel,) = (Path(name) for name in sys.argv[1:] if name.endswith(".whl"))
    with tarfile.open(sdist) as archive:
        files = {member.name.partition("/")[2] for member in archive if member.isfile()}
    with zipfile.ZipFile(wheel) as package:
        names = set(package.namelist())
        (described,) = (name for name in names if name.endswith("dist-info/METADATA"))
        metadata = package.read(described).decode()
    if found := problems(files, names, metadata):
        sys.exit("\n".join(found))


if __name__ == "__main__":
    main()
