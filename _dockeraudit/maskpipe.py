"""The command `mask`: standard input to standard output, its secrets as asterisks.

standard input ─▶ Mask ─▶ standard output, a line as soon as it is complete
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections.abc import Callable, Sequence

from _dockeraudit.commandline import OneLineParser
from _dockeraudit.engine import BLOCK
from _dockeraudit.errors import ConfigurationError
from _dockeraudit.http1 import CloseReader
from _dockeraudit.keyfile import load_fingerprint_key
from _dockeraudit.maskedstream import NoRecords
from _dockeraudit.masking import Mask
from _dockeraudit.options import load_settings, option_parser
from _dockeraudit.places import PlainSpans, WirePlaces
from _dockeraudit.records import Fingerprinter
from _dockeraudit.settings import Settings
from _dockeraudit.startup import load_scanner
from _dockeraudit.text import SEVERITY_RANK
from _dockeraudit.textfiles import EXIT_OUTPUT, error_output

MASK_OPTIONS = (
    "fingerprint-key", "rules", "only-rules", "disable-rule", "allow-secret", "config",
)  # fmt: skip
MASK_SEVERITY = "MEDIUM"  # from which on the pipe masks, unless it is told


def command_mask(arguments: Sequence[str]) -> int:
    """`mask [--severity SEVERITY]`: standard input to standard output, secrets as asterisks.

    Each byte of a secret becomes an asterisk, and no other byte changes. A line leaves when it is
    complete, or 15 ms after its last byte.

      docker logs web 2>&1 | dockeraudit mask
    """
    settings = load_settings(arguments, os.environ, mask_parser())
    severity = str(settings.severity).upper()
    if severity not in SEVERITY_RANK:
        known = ", ".join(SEVERITY_RANK)
        raise ConfigurationError(f"--severity: {settings.severity!r} is not one of {known}")
    mask = Mask(
        WirePlaces(PlainSpans(CloseReader()), "raw", name="file"),
        load_scanner(settings),
        NoRecords(),
        severity,
        exempt=allowed_secrets(settings),
    )
    if sys.stdin is None or sys.stdout is None:
        raise ConfigurationError("mask needs standard input and standard output, and one is closed")
    return run_mask(mask, sys.stdin.fileno(), sys.stdout.fileno())


def mask_parser() -> OneLineParser:
    """The parser of `mask`'s options."""
    parser = option_parser(MASK_OPTIONS, prog="dockeraudit mask", description=command_mask.__doc__)
    parser.add_argument(
        "--severity",
        metavar="SEVERITY",
        default=MASK_SEVERITY,
        help=f"HIGH, MEDIUM or LOW: mask such secrets and graver ones (default: {MASK_SEVERITY})",
    )
    return parser


def allowed_secrets(settings: Settings) -> Callable[[bytes], bool] | None:
    """Whether a secret is one of --allow-secret's, for all containers; None where there are none.

    Raises ConfigurationError or AuditLogError.
    """
    allowed = {text for text in settings.allow_secret if ":" not in text}
    if not allowed:
        return None
    fingerprinter = Fingerprinter(load_fingerprint_key(settings.fingerprint_key))
    return lambda secret: fingerprinter.of(secret) in allowed


def run_mask(mask: Mask, source: int, target: int) -> int:
    """Mask what one descriptor gives and write it to the other; returns the exit status."""
    status = 0
    try:
        while True:
            block = read_or_lapse(mask, source)
            if block == b"":
                break
            write_all(target, mask.feed(block or b"", time.monotonic()))
        write_all(target, mask.end())
    except KeyboardInterrupt:
        write_all(target, mask.end())
        status = 128 + signal.SIGINT
    except BrokenPipeError:
        raise  # the reader of our output is gone, which is no error
    except OSError as error:
        error_output().write(f"dockeraudit mask: cannot go on: {error.strerror}\n")
        return EXIT_OUTPUT
    return status


def read_or_lapse(mask: Mask, source: int) -> bytes | None:
    """The next bytes, b"" at the end; None where the hold ends before any come."""
    due = mask.due()
    if due is not None and hasattr(select, "poll"):
        poll = select.poll()
        poll.register(source, select.POLLIN)
        if not poll.poll(max(0.0, due - time.monotonic()) * 1000):
            return None
    return os.read(source, BLOCK)


def write_all(target: int, data: bytes) -> None:
    """Write all of some bytes."""
    view = memoryview(data)
    while view:
        view = view[os.write(target, view) :]
