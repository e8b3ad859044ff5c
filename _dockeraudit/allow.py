"""The command `allow`: writes findings that are known as harmless into the baseline's file."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from datetime import date

from _dockeraudit.baseline import BaselineEntry, add_known, last_day, split_name, utc_day
from _dockeraudit.commandline import OneLineParser
from _dockeraudit.errors import ConfigurationError
from _dockeraudit.options import load_settings, option_parser
from _dockeraudit.settings import Settings
from _dockeraudit.text import printable


def command_allow(arguments: Sequence[str]) -> int:
    """`allow FINGERPRINT...`: write findings that are known as harmless to --baseline.

    One line each, in place of an earlier one of the same finding; all other lines stay.
    """
    options = load_settings(arguments, os.environ, allow_parser())
    if not options.baseline:
        raise ConfigurationError("--baseline FILE is missing: the file to write to")
    if not options.reason:
        raise ConfigurationError("--reason WHY is missing: for whoever reads the file")
    entries = allowed_entries(options, utc_day(time.time()))
    try:
        add_known(options.baseline, entries)
    except OSError as error:
        reason = error.strerror
        raise ConfigurationError(f"--baseline: cannot write {options.baseline}: {reason}") from None
    for entry in entries:
        sys.stdout.write(f"{options.baseline}: {printable(entry.line().strip())}\n")
    return 0


def allow_parser() -> OneLineParser:
    """The parser of `allow`'s options."""
    parser = option_parser(
        ("baseline", "config"), prog="dockeraudit allow", description=command_allow.__doc__
    )
    parser.add_argument("fingerprints", nargs="+", metavar="FINGERPRINT", help="of the finding")
    for name, metavar, text in (
        ("reason", "WHY", "why it is harmless, for whoever reads the file"),
        ("until", "DAY", "the last day on which it counts (UTC): 2027-03-31, 90d, 12w"),
        ("container", "NAME", "only in this container"),
    ):
        parser.add_argument(f"--{name}", metavar=metavar, help=text)
    return parser


def allowed_entries(options: Settings, today: date) -> list[BaselineEntry]:
    """The entries that `allow` is to write; raises ConfigurationError."""
    reason, container = " ".join(options.reason.split()), options.container or ""
    if not reason:
        raise ConfigurationError("--reason is empty; say why the finding is harmless")
    if container and (len(container.split()) != 1 or container.startswith("#")):
        raise ConfigurationError(f"--container {container!r}: no name has blanks or begins with #")
    until = last_day(options.until, today) if options.until else None
    entries = []
    for name in options.fingerprints:
        try:
            in_name, fingerprint = split_name(name)
        except ValueError as error:
            raise ConfigurationError(str(error)) from None
        entries.append(BaselineEntry(container or in_name, fingerprint, until, reason))
    return entries
