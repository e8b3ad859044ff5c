"""The command `man`: the manual page, from the parsers that make the help.

On a terminal the page is roff_shown by man(1); piped, it is the page's source (man(7)).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence

from _dockeraudit import __version__
from _dockeraudit.commandline import OneLineParser
from _dockeraudit.helptext import EXIT_STATUSES, INTRODUCTION, SERVE_HELP, Commands
from _dockeraudit.options import OPTIONS, PRECEDENCE, SHARED_VARIABLES

PAGE_HEAD = f'.TH DOCKERAUDIT 1 "" "dockeraudit {__version__}" "User Commands"'
ONE_LINE = "dockeraudit - a Docker socket proxy that audits log streams for leaked secrets"
FILES_TEXT = (
    ("audit.log", "the audit log, one JSON record a line (--audit-log)"),
    (".audit.log.key", "the key of the fingerprints, beside the log, made once"),
    (".audit.log.lock", "keeps a second process away from the log"),
)
EXAMPLES = (
    ("dockeraudit --listen unix:///run/dockeraudit/docker.sock", "relay on a Unix socket"),
    ("export DOCKER_HOST=unix:///run/dockeraudit/docker.sock", "then use docker as always"),
    ("dockeraudit report --since 24h", "what leaked since yesterday, where, and who read it"),
    ("dockeraudit scan --containers", "what all containers have logged already"),
)


def man_parser() -> OneLineParser:
    """The parser of `man`."""
    return OneLineParser(
        "dockeraudit man",
        "`man`: the manual page.\n\nPiped, it is the page's source:\n"
        "  dockeraudit man | sudo tee /usr/local/share/man/man1/dockeraudit.1",
    )


def run_man(arguments: Sequence[str], commands: Commands) -> int:
    """Show the page on a terminal where there is man(1); else write its source."""
    man_parser().parse_args(arguments)
    page = manual_page(commands)
    if not (sys.stdout.isatty() and roff_shown(page)):
        sys.stdout.write(page)
    return 0


def roff_shown(page: str) -> bool:
    """Whether man(1) could show the page."""
    import subprocess  # here, since other commands start faster without it

    try:
        return (
            subprocess.run(["man", "-l", "-"], input=page, text=True, check=False).returncode == 0
        )
    except OSError:
        return False


def manual_page(commands: Commands) -> str:
    """The page's source."""
    intro, _, examples = INTRODUCTION.partition("\n\n")
    lines = [PAGE_HEAD, ".SH NAME", roff(ONE_LINE), ".SH SYNOPSIS"]
    forms = ("[serve] [OPTIONS]", "COMMAND [OPTIONS] [ARGUMENTS]", "help [COMMAND]")
    lines.append("\n.br\n".join(f".B dockeraudit {roff(form)}" for form in forms))
    lines += [".SH DESCRIPTION", roff(intro), ".PP", roff(SERVE_HELP), ".SH COMMANDS"]
    for name, command in commands.items():
        lines += [".TP", f".B {roff(name)}", roff(command.summary)]
    for name, command in commands.items():
        lines += command_section(name, command.parser())
    lines += [".SH ENVIRONMENT", roff(PRECEDENCE)]
    for option in OPTIONS:
        shared = SHARED_VARIABLES.get(option.name)
        also = f"; also {shared}" if shared else ""
        lines += entry(option.variable, f"--{option.name}{also}")
    lines += entry("DOCKERAUDIT_ACCESS", "rules of access, with ; between them")
    for title, table in (("FILES", FILES_TEXT), ("EXIT STATUS", EXIT_STATUSES)):
        lines += [f".SH {title}", *(line for row in table for line in entry(*row))]
    lines.append(".SH EXAMPLES")
    for example, text in EXAMPLES:
        lines += entry(example, text)
    lines += [".SH SEE ALSO", r".BR docker (1),", r".BR dockerd (8)"]
    return "\n".join(lines) + "\n"


def command_section(name: str, parser: OneLineParser) -> Iterator[str]:
    """A command's options and arguments, under the titles of its help."""
    yield f".SH {roff(name.upper())}"
    for number, part in enumerate((parser.description or "").split("\n\n")):
        if number:
            yield ".PP"
        if "\n  " in part:
            yield from (".nf", *map(roff, part.splitlines()), ".fi")
        else:
            yield roff(part)
    for group in parser._action_groups:
        listed = [action for action in group._group_actions if action in parser.actions()]
        if listed:
            yield f".SS {roff(group.title or '')}"
        for action in listed:
            yield from entry(called(action), (action.help or "").replace("%%", "%"))


def called(action: argparse.Action) -> str:
    """How an option or argument is written."""
    metavar = action.metavar or "{" + ",".join(map(str, action.choices or ())) + "}"
    value = f" {metavar}" if action.nargs != 0 else ""
    return (", ".join(action.option_strings) + value).strip()


def entry(term: str, text: str) -> list[str]:
    """A term with its explanation."""
    return [".TP", f".B {roff(term)}", roff(text)]


def roff(text: str) -> str:
    """Text as roff takes it: no character of it is a command."""
    text = " ".join(text.replace("\\", "\\e").replace("-", "\\-").replace('"', "\\(dq").split())
    return "\\&" + text if text[:1] in (".", "'") else text
