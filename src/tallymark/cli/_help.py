"""Help: a page that fits a terminal for the program and for each command."""

import shutil
import textwrap
from typing import Any, Final

from ._commands import ALL, COMMANDS, OPTIONS, PERIOD
from ._writing import write

__all__ = ["HelpPage", "entry", "print_overview"]

#: How wide the names of arguments and options are at most, beside their descriptions.
_NAMES: Final = 22

#: What stands for a blank at which no line ends.
_BLANK: Final = "\0"

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
        #: What is printed before the first group, which has the names of arguments.
        self._usage = self._description = ""

    def render_usage(self, console: Any, options: Any, usage: Any) -> None:
        """Take the line with the usage."""
        self._usage = str(usage).strip().removeprefix("Usage:").strip()
        self._is_overview = "COMMAND" in self._usage

    def render_description(self, console: Any, options: Any, description: Any) -> None:
        """Take the description: a docstring without its arguments."""
        if self._is_overview:
            print_overview()
            return
        text = "".join(text.plain for text in _texts(description)).strip()
        paragraphs = text.replace("For example:\n\n", "For example:\n").split("\n\n")
        self._description = "\n".join(
            f"{paragraph}\n" if paragraph.startswith("For example:") else _wrapped(paragraph, 0)
            for paragraph in paragraphs
        )

    def __call__(self, console: Any, options: Any, panel: Any) -> None:
        """Print a group of arguments or options; the overview has the commands already."""
        if panel.format != "parameter" or not panel.entries or self._is_overview:
            return
        labels = [_label(item) for item in panel.entries]
        if self._usage:
            # cyclopts calls an argument that may be left out ARGS.
            usage = self._usage.replace("[ARGS", f"[{labels[-1]}")
            write(f"Usage: {usage}\n\n{self._description}")
            self._usage = ""
        if panel.title == ALL:
            write(f"\n{ALL}, such as --url and --json: see tallymark help\n")
            return
        write(f"\n{panel.title}:\n")
        if panel.title == PERIOD:  # several on a line, each with an example
            shown = (f"{_names(item)} {_plain(item.description)}" for item in panel.entries)
            lines = _wrapped("  ".join(text.replace(" ", _BLANK) for text in shown), 2)
            write(lines.replace(_BLANK, " "))
            return
        for item, label in zip(panel.entries, labels, strict=True):
            described = _plain(item.description)
            if item.choices and not all(choice in described for choice in item.choices):
                described += f": {', '.join(item.choices)}"
            write(entry(label, described))


def _label(item: Any) -> str:
    """Return the name of an argument or the names of an option, with what values are."""
    names = _names(item)
    if not names:  # not in cyclopts 4, which has the label among the names
        return str(item.positional_label)
    metavar = getattr(item, "metavar", None)  # not in cyclopts 4
    return f"{names} {metavar}" if metavar else names


def _names(item: Any) -> str:
    return ", ".join((*item.positive_shorts, *item.positive_names))


def _plain(description: Any) -> str:
    """Return a description of cyclopts as a text without a full stop at its end."""
    return "".join(text.plain for text in _texts(description)).strip().rstrip(".")


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
