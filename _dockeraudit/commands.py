"""The small commands: rules, verify, report, learn, healthcheck."""

from __future__ import annotations

import gc
import json
import os
import socket
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from _dockeraudit.engine import BLOCK, nested
from _dockeraudit.errors import EXIT_UNAVAILABLE, ConfigurationError
from _dockeraudit.http1 import STATUS_LINE
from _dockeraudit.learning import learn
from _dockeraudit.listeners import load_listeners
from _dockeraudit.options import OneLineParser, load_settings, option_parser
from _dockeraudit.report import log_history, run_report
from _dockeraudit.scan import open_for_scan
from _dockeraudit.settings import Listener
from _dockeraudit.startup import load_scanner
from _dockeraudit.userrules import rules_markdown
from _dockeraudit.verify import run_verify


def command_rules(arguments: Sequence[str]) -> int:
    """`rules`: the table of rules; --markdown as a document."""
    parser = OneLineParser(prog="dockeraudit rules", description=command_rules.__doc__)
    parser.add_argument("--markdown", action="store_true", help="as docs/rules.md")
    options, rest = parser.parse_known_args(arguments)
    rules = load_scanner(load_settings(rest, os.environ)).rules
    if options.markdown:
        sys.stdout.write(rules_markdown(rules))
        return 0
    width = max(len(rule.id) for rule in rules)
    for rule in rules:
        sys.stdout.write(f"{rule.severity:6}  {rule.id:{width}}  {rule.name}\n")
    return 0


def command_verify(arguments: Sequence[str]) -> int:
    """`verify FILE...`: check audit logs: 0 whole, 1 something is missing, changed or counted as lost."""
    parser = OneLineParser(prog="dockeraudit verify", description=command_verify.__doc__)
    parser.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="the files of one log in any order, also .gz; - is standard input",
    )
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument(
        "--anchor",
        action="append",
        default=[],
        metavar="HASH",
        help="a line's hash seen elsewhere; repeatable",
    )
    options = parser.parse_args(arguments)
    return run_verify(
        options.files, json_output=options.json, anchors=options.anchor, out=sys.stdout
    )


def command_report(arguments: Sequence[str]) -> int:
    """`report [FILE...]`: what leaked, where, who read it, and what was not recorded; of the audit log and its rotated files."""
    parser = option_parser(
        ("audit-log", "config"), prog="dockeraudit report", description=command_report.__doc__
    )
    parser.add_argument(
        "files",
        nargs="*",
        metavar="FILE",
        help="audit logs, also .gz; - is standard input; default: --audit-log's, with its rotated files",
    )
    for name, metavar, text in (
        ("since", "WHEN", "24h, 7d or a timestamp"),
        ("container", "NAME", "a name, or the beginning of an id"),
        ("pattern", "NAME", "a rule's name or id"),
        (
            "secret",
            "FINGERPRINT",
            "one credential: every container it leaked in, and every reader that saw it",
        ),
        ("severity", "SEVERITY", "HIGH, MEDIUM or LOW, and above"),
        ("fail-on", "SEVERITY", "exit 1 if there is such a finding, or a graver one"),
    ):
        parser.add_argument(f"--{name}", metavar=metavar, help=text)
    parser.add_argument(
        "--state",
        metavar="FILE",
        help="remember in FILE what was told, and tell nothing unless there is more: for cron",
    )
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument("--html", action="store_true", help="one page, self-contained")
    options = load_settings(arguments, os.environ, parser)
    gc.disable()  # the tables hold no cycles, and this process ends with the report: a third faster
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # a locale without the character at hand
    return run_report(
        options.files or log_history(options.audit_log, options.since),
        since=options.since,
        container=options.container,
        pattern=options.pattern,
        secret=options.secret,
        severity=options.severity,
        json_output=options.json,
        html=options.html,
        fail_on=options.fail_on,
        state=options.state,
        out=sys.stdout,
        err=sys.stderr,
        now=time.time(),
    )


def command_learn(arguments: Sequence[str]) -> int:
    """`learn AUDIT_LOG...`: the least settings that admit what the log has seen."""
    parser = OneLineParser(prog="dockeraudit learn", description=command_learn.__doc__)
    parser.add_argument(
        "files", nargs="+", metavar="AUDIT_LOG", help="audit logs, also .gz; - is standard input"
    )
    parser.add_argument(
        "--policy",
        choices=("linuxserver", "tecnativa"),
        default="linuxserver",
        help="whose variables (default: %(default)s, which can open less)",
    )
    parser.add_argument(
        "--listener", metavar="NAME", help="only what came to this listener (its name or URL)"
    )
    options = parser.parse_args(arguments)
    try:
        records = (
            record
            for record in read_records(options.files)
            if options.listener in (None, nested(record, ("client", "listener")))
        )
        lines = learn(records, options.policy == "linuxserver")
    except OSError as error:
        raise ConfigurationError(f"cannot read {error.filename}: {error.strerror}") from None
    sys.stdout.write("".join(line + "\n" for line in lines))
    return 0


def read_records(paths: Iterable[str]) -> Iterator[dict[str, Any]]:
    """The records of audit logs; lines that are none are passed over (`verify` names them)."""
    for path in paths:
        with open_for_scan(path) as file:
            for line in file:
                try:
                    record = json.loads(line)
                except ValueError:
                    continue
                if isinstance(record, dict):
                    yield record


def command_healthcheck(arguments: Sequence[str]) -> int:
    """`healthcheck`: 0 if a listener answers with anything but 502, else 69."""
    settings = load_settings(arguments, os.environ)
    listeners = load_listeners(settings, os.environ, lambda level, text: None)
    for listener in listeners:
        status = ask_listener(listener)
        if status is not None:
            return EXIT_UNAVAILABLE if status == 502 else 0
    return EXIT_UNAVAILABLE


def ask_listener(listener: Listener) -> int | None:
    """The status that a listener answers to /_ping; None if nobody does. Of TLS the connection suffices."""
    address = listener.address
    target = address.target
    if address.family != socket.AF_UNIX:
        local = {"0.0.0.0": "127.0.0.1", "::": "::ffff:127.0.0.1"}.get(
            target[0], target[0]
        )  # ::1 can be off where :: is not
        target = (local,) + tuple(target[1:])
    with socket.socket(address.family, socket.SOCK_STREAM) as sock:
        sock.settimeout(HEALTHCHECK_TIMEOUT)
        try:
            sock.connect(target)
            if listener.tls:
                return 200
            sock.sendall(b"GET /_ping HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            line = STATUS_LINE.match(sock.recv(BLOCK))
        except OSError:
            return None
    return int(line.group(2)) if line else None


HEALTHCHECK_TIMEOUT = 5.0  # seconds for each listener
