"""Check the files of a release: `python tests/release.py SDIST WHEEL`, as `nox -s build` does."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

#: What the sdist has, and the repository has not.
MADE = {"PKG-INFO"}
#: Modules of the wheel outside the package.
BESIDE = {"pytest_tallymark.py"}


def problems(sdist: set[str], tracked: set[str], wheel: set[str], metadata: str) -> list[str]:
    """Return what is wrong with the names of the files, and the metadata of the wheel.

    Arguments:
        sdist: the names in the sdist: all of the repository, so that its tests run.
        tracked: those in the repository.
        wheel: those in the wheel: the package, and all of it.
        metadata: its file METADATA.
    """
    package = {n for n in tracked if n.startswith("src/")}
    modules = {f"src/{n}" for n in wheel if ".dist-info/" not in n}
    beside = {n for n in modules if not n.startswith("src/tallymark/")}
    found = [f"sdist: no {name}" for name in sorted(tracked - sdist)]
    found += [f"sdist: {name} is not in the repository" for name in sorted(sdist - tracked - MADE)]
    found += [f"wheel: no {name}" for name in sorted(package - modules)]
    found += [f"wheel: {name} is not in the repository" for name in sorted(modules - package)]
    found += [f"wheel: {n} is no part of the package" for n in beside if n[4:] not in BESIDE]
    if not any(name.endswith("licenses/LICENSE") for name in wheel):
        found.append("wheel: no LICENSE")
    _, _, readme = metadata.partition("\n\n")
    found += [
        f"README: the link {link} is relative"
        for link in re.findall(r"\]\(([^)]*)\)", readme)
        if not link.startswith("https://")
    ]
    if len(readme) < 1000:
        found.append("README: it is not in the metadata")
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
    done = subprocess.run(["git", "ls-files"], capture_output=True, text=True, check=True)
    if found := problems(files, set(done.stdout.splitlines()), names, metadata):
        sys.exit("\n".join(found))


if __name__ == "__main__":
    main()
