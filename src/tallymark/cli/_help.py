"""Help: a page that fits a terminal for the program and for each command."""

import shutil
import textwrap
from typing import Any, Final

from ._commands import ALL, COMMANDS, OPTIONS
from ._writing import write

__all__ = ["HelpPage", "entry", "print_overview"]

#: How wide the names of arguments and options are at most, beside their descriptions.
_NAMES: Final = 22

_EXAMPLES: Final = """\
Examples:
  tallymark mark active 123
  tallymark count active --month 2026-01
  tallymark retention signup active --by week --html retention.html
"""


class HelpPage:
    """Formats help, for cyclopts: two columns without boxes.

    The page of a command only names the options that all commands have.
    """

    def __init__(self) -> None:
        self._is_overview = False

    def render_usage(self, console: Any, options: Any, usage: Any) -> None:
        """Print the line with the usage."""
        text = str(usage).strip().removeprefix("Usage:").strip()
        self._is_overview = "COMMAND" in text
        if not self._is_overview:
            write(f"Usage: {text}\n\n")

    def render_description(self, console: Any, options: Any, description: Any) -> None:
        """Print the description: a docstring without its arguments."""
        if self._is_overview:
            print_overview()
        else:
            text = "".join(text.plain for text in _texts(description)).strip()
            for paragraph in text.replace("For example:\n\n", "For example:\n").split("\n\n"):
                separator = "" if paragraph == text.split("\n\n")[0] else "\n"
                is_prose = not paragraph.startswith("For example:")
                write(separator + (_wrapped(paragraph, 0) if is_prose else f"{paragraph}\n"))

    def __call__(self, console: Any, options: Any, panel: Any) -> None:
        """Print a group of arguments or options; the overview has the commands already."""
        if panel.format != "parameter" or not panel.entries or self._is_overview:
            return
        if panel.title == ALL:
            write(f"\n{_options_of_all()}")
            return
        write(f"\n{panel.title}:\n")
        for item in panel.entries:
            names = ", ".join((*item.positive_shorts, *item.positive_names))
            if not names:
                names = getattr(entry, "positional_label", None) or ""
            elif getattr(entry, "metavar", None):  # not before cyclopts 5
                names += f" {item.metavar}"
            described = "".join(text.plain for text in _texts(item.description)).strip()
            if item.choices and not all(choice in described for choice in item.choices):
                described += f": {', '.join(item.choices)}"
            write(entry(names, described))


def print_overview() -> int:
    """Print the page of the program: the names of commands, and examples."""
    groups: dict[str, list[str]] = {}
    for name, (_, group, _) in COMMANDS.items():
        groups.setdefault(group, []).append(name)
    listed = "".join(entry(group, " ".join(names), 9) for group, names in groups.items())
    write(
        "Usage: tallymark COMMAND [OPTIONS]\n\n"
        "Mark events of users on Redis bitmaps, and read them back.\n\n"
        f"{listed}\n{_EXAMPLES}\n{_options_of_all()}\n"
        "tallymark COMMAND --help describes a command, tallymark help lists all.\n"
    )
    return 0


def _options_of_all() -> str:
    """Return the names of the options that all commands have."""
    names = " ".join(f"--{name}" for name in ("help", *OPTIONS))
    return _wrapped(f"{ALL} (tallymark help):", 0) + _wrapped(names, 2)


def _texts(description: Any) -> list[Any]:
    """Return the parts of a description of cyclopts that are text, as `rich.text.Text`."""
    if description is None:
        return []
    from rich.text import Text  # noqa: PLC0415 - an extra

    if isinstance(description, Text | str):
        return [Text(description) if isinstance(description, str) else description]
    parts = getattr(description, "primary_renderable", None)
    return _texts(parts) if parts is not None else [Text(str(description))]


def _width() -> int:
    return min(100, shutil.get_terminal_size().columns)


def _wrapped(text: str, indent: int) -> str:
    filled = textwrap.fill(
        text,
        _width(),
        initial_indent=" " * indent,
        subsequent_indent=" " * indent,
        break_on_hyphens=False,
    )
    return f"{filled}\n"


def entry(name: str, text: str, least: int = _NAMES) -> str:
    """Return a name, and a text beside it in a column of its own."""
    filled = textwrap.fill(
        text,
        _width(),
        initial_indent=" " * (least + 3),
        subsequent_indent=" " * (least + 3),
        break_on_hyphens=False,
    )
    if len(name) > least:
        return f"  {name}\n{filled}\n" if text else f"  {name}\n"
    return f"  {name}{filled[len(name) + 2 :]}\n"
