"""The command `allow`: writes findings that are known as harmless into the baseline's file."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from datetime import date

from _dockeraudit.baseline import (
    BaselineEntry,
    add_known,
    last_day,
    read_baseline,
    split_name,
    utc_day,
)
from _dockeraudit.commandline import OneLineParser
from _dockeraudit.commands import read_records
from _dockeraudit.errors import ConfigurationError
from _dockeraudit.logrecords import text_of
from _dockeraudit.options import load_settings, option_parser
from _dockeraudit.settings import Settings
from _dockeraudit.subscribers import FINDING_EVENTS
from _dockeraudit.text import printable


def command_allow(arguments: Sequence[str]) -> int:
    """`allow FINGERPRINT...`: write findings that are known as harmless to --baseline.

    One line each, in place of an earlier one of the same finding; all other lines stay. With --from
    also all findings of an audit log, or of scan --json, that the file does not know yet.
    """
    options = load_settings(arguments, os.environ, allow_parser())
    if not options.baseline:
        raise ConfigurationError("--baseline FILE is missing: the file to write to")
    if not options.reason:
        raise ConfigurationError("--reason WHY is missing: for whoever reads the file")
    if not options.fingerprints and not options.found_in:
        raise ConfigurationError("name a FINGERPRINT, or a log with --from")
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
    parser.add_argument(
        "fingerprints", nargs="*", metavar="FINGERPRINT", help="as report, watch and scan show it"
    )
    parser.add_argument(
        "--from", dest="found_in", metavar="LOG", help="all findings in it; - is standard input"
    )
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
    if options.found_in:
        known = {entry.name for entry in (*entries, *known_before(options.baseline))}
        for fingerprint, what in found_in(options.found_in).items():
            entry = BaselineEntry(container, fingerprint, until, f"{reason} ({what})")
            entries += [entry] if entry.name not in known and fingerprint not in known else []
    return entries


def known_before(path: str) -> list[BaselineEntry]:
    """What the file holds; nothing where there is none. Raises ConfigurationError."""
    return read_baseline(path) if os.path.exists(path) else []


def found_in(log: str) -> dict[str, str]:
    """The fingerprints that a log's findings have, each with its rule and where it came first.

    Raises ConfigurationError.
    """
    found: dict[str, str] = {}
    for record in read_records([log]):
        fingerprint = text_of(record.get("fingerprint"))
        if record["event"] in FINDING_EVENTS and fingerprint and not record.get("placeholder"):
            where = text_of(record.get("container_name")) or text_of(record.get("container_id"))
            what = " in ".join(filter(None, (text_of(record.get("pattern")), where)))
            found.setdefault(fingerprint, " ".join(what.split()))
    return found
