"""The table of commands as help: the overview, one command's help, a command that is not known."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import Callable, NamedTuple

from _dockeraudit.commandline import OneLineParser, help_width
from _dockeraudit.errors import ConfigurationError
from _dockeraudit.options import PRECEDENCE, option_parser
from _dockeraudit.text import did_you_mean

USAGE = """\
dockeraudit [serve] [OPTIONS]
       dockeraudit COMMAND [OPTIONS] [ARGUMENTS]
       dockeraudit help [COMMAND]"""
INTRODUCTION = """\
A Docker socket proxy that audits log streams: it relays the whole Engine API unchanged, and writes
one JSON line for each secret (keys, tokens, passwords) that container output carries past it.

  dockeraudit                               relay 127.0.0.1:2375 to the engine
  export DOCKER_HOST=tcp://127.0.0.1:2375   then use docker as always
  dockeraudit report                        what leaked, where, and who read it
"""
SERVE_HELP = """\
SIGHUP reopens the log, and reads rules, lists and certificates again. SIGTERM lets open requests
finish; a second one ends the process at once."""
#: what the process ends with, by sysexits.h where that has a word for it
EXIT_STATUSES = (
    ("0", "stopped cleanly; nothing found"),
    ("1", "scan, verify or report --fail-on found something"),
    ("2", "scan could not read a file"),
    ("66", "report cannot read a file"),
    ("69", "healthcheck failed, or scan cannot reach the engine"),
    ("70", "ended by a defect"),
    ("73", "cannot listen"),
    ("74", "records of the audit log were lost"),
    ("75", "another process writes the audit log"),
    ("78", "a setting is wrong"),
)


class Command(NamedTuple):
    """A command: its function, from arguments to exit status, and its parser, for the help."""

    run: Callable[[Sequence[str]], int]
    parser: Callable[[], OneLineParser]

    @property
    def summary(self) -> str:
        """What it does: the first paragraph of its description, without the full stop."""
        first = (self.parser().description or "").split("\n\n")[0]
        return " ".join(first.split()).rstrip(".")


Commands = Mapping[str, Command]


def serve_parser() -> OneLineParser:
    """The parser of `serve`, all options in their groups."""
    about = f"Relay until SIGTERM or SIGINT.\n\n{SERVE_HELP}\n\n{PRECEDENCE}"
    return option_parser(description=about, usage="dockeraudit [serve] [OPTIONS]")


def overview(commands: Commands) -> str:
    """The help of the program: what it is, its commands, and the options of `serve`."""
    longest = max(map(len, commands))
    rows = (
        textwrap.fill(
            command.summary[:1].lower() + command.summary[1:],
            help_width(),
            initial_indent=f"  {name:{longest}}  ",
            subsequent_indent=" " * (longest + 4),
            break_on_hyphens=False,
        )
        for name, command in commands.items()
    )
    table = "\n".join(("commands (dockeraudit help COMMAND says more):", *rows))
    about = f"{INTRODUCTION}\n{table}\n\n{PRECEDENCE}"
    return option_parser(prog="dockeraudit", description=about, usage=USAGE).format_help()


def command_named(name: str, commands: Commands) -> Command:
    """The command of this name; raises ConfigurationError that names a near one, and all."""
    if name not in commands:
        hint, known = did_you_mean(name, commands), ", ".join(commands)
        raise ConfigurationError(f"{name!r} is not a command{hint}; there are {known}")
    return commands[name]


def help_parser() -> OneLineParser:
    """The parser of `help`."""
    parser = OneLineParser("dockeraudit help", "`help [COMMAND]`: what a command does and takes.")
    parser.add_argument(
        "command", nargs="?", metavar="COMMAND", help="a command; without one, all of them"
    )
    return parser


def run_help(arguments: Sequence[str], commands: Commands) -> int:
    """Write the help of one command, or the overview."""
    name = help_parser().parse_args(arguments).command
    text = command_named(name, commands).parser().format_help() if name else overview(commands)
    sys.stdout.write(text)
    return 0
