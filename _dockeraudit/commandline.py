"""The command line: argparse with a help that fits the terminal, and errors as one sentence."""

from __future__ import annotations

import argparse
import re
import shutil
import textwrap
from collections.abc import Iterable
from typing import Any, NoReturn

from _dockeraudit.errors import ConfigurationError
from _dockeraudit.text import did_you_mean

WIDEST_HELP = 100  # columns; longer lines of prose are hard to read
NAME_COLUMNS = 30  # of an option with its value; a wider one has a line of its own
COMMAND_HEAD = re.compile(r"`[^`]*`: ")  # what a command's docstring begins with: how it is called


def help_width() -> int:
    """Columns of a help's lines."""
    return min(WIDEST_HELP, shutil.get_terminal_size().columns) - 2


class HelpLayout(argparse.HelpFormatter):
    """Help as wide as the terminal; a description's paragraph with indented lines stays."""

    def __init__(self, prog: str, **layout: Any) -> None:
        given = {"max_help_position": NAME_COLUMNS, "width": help_width(), **layout}
        super().__init__(prog, **given)

    def _split_lines(self, text: str, width: int) -> list[str]:
        """An option's help, wrapped at blanks: an option's name stays whole."""
        return textwrap.wrap(" ".join(text.split()), width, break_on_hyphens=False)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        """A description's paragraphs, wrapped."""
        return "\n\n".join(
            part
            if "\n  " in part or part.startswith("  ")
            else textwrap.fill(part, width, break_on_hyphens=False)
            for part in text.split("\n\n")
        )


def plain_text(docstring: str) -> str:
    """A docstring without its indentation (`inspect.cleandoc`; to import that costs 1 MiB)."""
    first, newline, rest = docstring.expandtabs().partition("\n")
    return (first.lstrip() + newline + textwrap.dedent(rest)).strip("\n")


class OneLineParser(argparse.ArgumentParser):
    """A parser whose errors are one sentence and exit 78.

    `description` may be the docstring of a command's function: "`name ARGUMENTS`: what it does."
    """

    def __init__(self, prog: str, description: str | None = None, **given: Any) -> None:
        about = COMMAND_HEAD.sub("", plain_text(description or ""), count=1)
        super().__init__(
            prog=prog,
            description=about[:1].upper() + about[1:],
            formatter_class=HelpLayout,
            add_help=False,
            **given,
        )
        self._positionals.title = "arguments"
        self._optionals.title = "options"  # Python 3.9 says "optional arguments"
        self.add_argument("-h", "--help", action="help", help="show this help")

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and which option may have been meant, without the usage before it."""
        hint = ""
        unknown = re.search(r"unrecognized arguments: (--[^\s=]+)", message)
        if unknown:
            hint = did_you_mean(unknown[1], self.option_names())
        raise ConfigurationError(f"{message}{hint}; see '{self.prog} --help'")

    def option_names(self) -> list[str]:
        """The long names of all options, in the order of the help."""
        return [
            name for action in self.actions() for name in action.option_strings if name[1] == "-"
        ]

    def actions(self) -> Iterable[argparse.Action]:
        """What the help lists: options and arguments, without the hidden ones."""
        return [action for action in self._actions if action.help != argparse.SUPPRESS]
