"""The small commands: rules, verify, report, watch, learn, policy."""

from __future__ import annotations

import gc
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TextIO

from _dockeraudit.baseline import KnownSecrets, read_baseline
from _dockeraudit.commandline import OneLineParser
from _dockeraudit.diagnostics import Diagnostics
from _dockeraudit.engine import nested
from _dockeraudit.errors import ConfigurationError
from _dockeraudit.learning import learn
from _dockeraudit.logrecords import RecordReader, text_of
from _dockeraudit.options import load_settings, option_parser
from _dockeraudit.policy import PolicyError
from _dockeraudit.presets import PRESETS, preset_lines
from _dockeraudit.report import (
    FORMATS,
    TABLES,
    ReportOptions,
    State,
    choice_of,
    line_batches,
    log_history,
    look_for,
    run_report,
)
from _dockeraudit.rules import Rule
from _dockeraudit.settings import Settings
from _dockeraudit.startup import load_scanner
from _dockeraudit.text import ReportError, printable
from _dockeraudit.textfiles import (
    error_output,
    open_text,
    read_errors,
    read_failure,
    with_lines,
    with_output,
)
from _dockeraudit.userrules import rules_markdown
from _dockeraudit.verify import run_verify
from _dockeraudit.watch import Watch, run_watch

#: options that say to `serve` what to write, and to these commands what to read
READ_HELP = {"audit-log": "the log to read, with its rotated files"}


def command_rules(arguments: Sequence[str]) -> int:
    """`rules`: the table of rules: severity, id, name; --markdown and --json as documents."""
    options = load_settings(arguments, os.environ, rules_parser())
    rules = load_scanner(options).rules
    with_output("rules", lambda out: write_rules(rules, options, out))
    return 0


def rules_parser() -> OneLineParser:
    """The parser of `rules`' options."""
    parser = option_parser(
        ("rules", "only-rules", "disable-rule", "config"),
        prog="dockeraudit rules",
        description=command_rules.__doc__,
    )
    parser.add_argument("--markdown", action="store_true", help="as docs/rules.md")
    parser.add_argument("--json", action="store_true", help="for programs")
    return parser


def write_rules(rules: Sequence[Rule], options: Settings, out: TextIO) -> int:
    """The rules in the form that was asked for."""
    if options.markdown:
        out.write(rules_markdown(rules))
        return 0
    if options.json:
        fields = ("id", "name", "severity", "reference", "custom")
        table = [{field: getattr(rule, field) for field in fields} for rule in rules]
        out.write(json.dumps(table, indent=1, ensure_ascii=False) + "\n")
        return 0
    width = max(len(rule.id) for rule in rules)
    for rule in rules:
        out.write(f"{rule.severity:6}  {rule.id:{width}}  {rule.name}\n")
    return 0


def command_verify(arguments: Sequence[str]) -> int:
    """`verify FILE...`: check audit logs: exit 0 if whole, 1 if a record is missing or changed."""
    options = verify_parser().parse_args(arguments)

    def write(out: TextIO) -> int:
        return run_verify(options.files, json_output=options.json, anchors=options.anchor, out=out)

    return with_output("verify", write)


def verify_parser() -> OneLineParser:
    """The parser of `verify`'s options."""
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
        help="the hash of a line that must be there, as it was noted elsewhere; repeatable",
    )
    return parser


def command_report(arguments: Sequence[str]) -> int:
    """`report [FILE...]`: what leaked, where, who read it, and what was not recorded.

    Reads audit logs: those named, or the log of --audit-log with its rotated files.
    """
    options = load_settings(arguments, os.environ, report_parser())
    if options.follow:
        return follow(options)
    files = options.files or log_history(options.audit_log, options.since)
    chosen = ReportOptions(
        since=options.since,
        container=options.container,
        pattern=options.pattern,
        secret=options.secret,
        severity=options.severity,
        fail_on=options.fail_on,
        state=options.state,
        placeholders=options.placeholders,
        known=known_secrets(options),
        format=report_format(options),
        named=bool(options.files),
        by=options.by,
        everything=options.all,
        top=options.top,
    )
    gc.disable()  # the tables hold no cycles, and this process ends with the report
    return with_output("report", lambda out: run_report(files, chosen, out, error_output()))


def report_format(options: Settings) -> str:
    """The format that was asked for; raises ConfigurationError for two at once."""
    chosen = [name for name in FORMATS if getattr(options, name, False)]
    if len(chosen) > 1:
        raise ConfigurationError(f"--{chosen[0]} and --{chosen[1]} cannot be had together")
    return chosen[0] if chosen else "text"


def report_parser() -> OneLineParser:
    """The parser of `report`'s options."""
    parser = option_parser(
        ("audit-log", "baseline", "config"),
        prog="dockeraudit report",
        description=command_report.__doc__,
        helps=READ_HELP,
    )
    parser.add_argument(
        "files",
        nargs="*",
        metavar="FILE",
        help="audit logs, also compressed or shipped ones; - is standard input; "
        "default: --audit-log's, with its rotated files",
    )
    add_filters(parser)
    for name, metavar, text in (
        ("fail-on", "SEVERITY", "exit 1 if there is such a finding, or a graver one"),
        ("top", "N", "rows of each table (default: 20)"),
        ("state", "FILE", "remember in FILE what was reported; report only what is new since then"),
    ):
        parser.add_argument(f"--{name}", metavar=metavar, help=text)
    parser.add_argument("--by", choices=TABLES, help="one table by rule, container or reader")
    for name, text in (
        ("all", "every secret and every row"),
        ("follow", "findings as they come, like the command watch"),
        ("json", "for programs"),
        ("csv", "a row for each way in which each secret was seen"),
        ("html", "one page, self-contained"),
    ):
        parser.add_argument(f"--{name}", action="store_true", help=text)
    return parser


def add_filters(parser: OneLineParser) -> None:
    """Options that choose findings, of `report` and `watch`."""
    for name, metavar, text in (
        ("since", "WHEN", "24h, 7d or a timestamp"),
        ("container", "NAME", "a name, or the beginning of an id"),
        ("pattern", "NAME", "a rule's name or id"),
        ("secret", "FINGERPRINT", "one credential: everywhere it leaked, everybody who saw it"),
        ("severity", "SEVERITY", "HIGH, MEDIUM or LOW, and above"),
    ):
        parser.add_argument(f"--{name}", metavar=metavar, help=text)
    parser.add_argument(
        "--placeholders",
        action="store_true",
        help="also what is plainly no secret: defaults, asterisks, examples",
    )


def known_secrets(options: Settings) -> frozenset[str]:
    """The secrets that --baseline knows, to leave out; raises ConfigurationError."""
    if not options.baseline:
        return frozenset()
    say = Diagnostics("warning", error_output()).say
    return KnownSecrets((), read_baseline(options.baseline), say).now()


def command_watch(arguments: Sequence[str]) -> int:
    """`watch [FILE]`: findings as they come, a line each; with --since the earlier ones first."""
    return follow(load_settings(arguments, os.environ, watch_parser()))


def watch_parser() -> OneLineParser:
    """The parser of `watch`'s options."""
    parser = option_parser(
        ("audit-log", "baseline", "config"),
        prog="dockeraudit watch",
        description=command_watch.__doc__,
        helps=READ_HELP,
    )
    parser.add_argument(
        "files",
        nargs="*",
        metavar="FILE",
        help="an audit log; - is standard input; default: --audit-log's",
    )
    add_filters(parser)
    parser.add_argument("--json", action="store_true", help="records for programs, one a line")
    return parser


def follow(options: Settings) -> int:
    """Show the findings of one log as they come; raises ConfigurationError."""
    paths = options.files or [options.audit_log]
    if len(paths) > 1:
        raise ConfigurationError(f"one log can be followed at a time, not {len(paths)}")
    chosen = ReportOptions(
        since=options.since,
        container=options.container,
        pattern=options.pattern,
        secret=options.secret,
        severity=options.severity,
        placeholders=options.placeholders,
        known=known_secrets(options),
    )
    try:
        choice = choice_of(chosen, State(), time.time())
    except ReportError as error:
        raise ConfigurationError(str(error)) from None
    err = error_output()
    if err.isatty():
        path = paths[0]
        missing = "" if path == "-" or os.path.exists(path) else ", which is not there yet"
        err.write(f"watching {printable(path)}{missing}; times are UTC, Ctrl-C ends it\n")

    def write(out: TextIO) -> int:
        watch = Watch(choice, out, look_for(out), options.json)
        return run_watch(paths[0], watch, options.since, err)

    return with_output("watch", write)


def command_learn(arguments: Sequence[str]) -> int:
    """`learn AUDIT_LOG...`: the least settings that admit what the log has seen."""
    options = learn_parser().parse_args(arguments)
    seen = ListenerRecords(options.listener)
    try:
        lines = learn(seen.of(read_records(options.files)), options.policy == "linuxserver")
    except PolicyError as error:
        raise ConfigurationError(seen.why_nothing(options.files, str(error))) from None

    return with_lines("learn", lines)


def learn_parser() -> OneLineParser:
    """The parser of `learn`'s options."""
    parser = OneLineParser(prog="dockeraudit learn", description=command_learn.__doc__)
    parser.add_argument(
        "files",
        nargs="+",
        metavar="AUDIT_LOG",
        help="audit logs, also compressed or shipped ones; - is standard input",
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
    return parser


def command_policy(arguments: Sequence[str]) -> int:
    """`policy [NAME]`: the rules of the preset NAME; without it, what presets there are.

    --policy preset:NAME puts them in force.
    """
    name = policy_parser().parse_args(arguments).name
    width = max(len(name) for name in PRESETS)
    lines = [f"{name:{width}}  {preset.summary}" for name, preset in PRESETS.items()]
    if name:
        lines = preset_lines(name)

    return with_lines("policy", lines)


def policy_parser() -> OneLineParser:
    """The parser of `policy`'s argument."""
    parser = OneLineParser(prog="dockeraudit policy", description=command_policy.__doc__)
    parser.add_argument(
        "name",
        nargs="?",
        choices=tuple(PRESETS),
        metavar="NAME",
        help="a client: " + ", ".join(PRESETS),
    )
    return parser


class ListenerRecords:
    """Records of one listener, or of all; remembers what there was, to say why there is nothing."""

    def __init__(self, listener: str | None) -> None:
        self.listener = listener
        self.records = 0
        self.listeners: set[str] = set()

    def of(self, records: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
        """The records that came to the listener."""
        for record in records:
            self.records += 1
            listener = text_of(nested(record, ("client", "listener")))
            if listener:
                self.listeners.add(listener)
            if self.listener in (None, listener):
                yield record

    def why_nothing(self, files: Sequence[str], error: str) -> str:
        """One sentence about a log from which nothing can be learned."""
        where = ", ".join("standard input" if name == "-" else name for name in files)
        if not self.records:
            return printable(f"there are no records of dockeraudit in {where}")
        if self.listener and self.listener not in self.listeners:
            known = ", ".join(sorted(self.listeners)) or "none"
            return printable(
                f"--listener {self.listener!r}: no record in {where} is of it; there are: {known}"
            )
        return printable(f"{where}: {error}")


def read_records(paths: Iterable[str]) -> Iterator[Mapping[str, Any]]:
    """The records of audit logs; lines that are none are passed over (`verify` names them)."""
    reader = RecordReader()
    for path in paths:
        try:
            with open_text(path) as file:
                for _, lines in line_batches(file):
                    yield from reader.records(lines)
        except read_errors() as error:
            raise ConfigurationError(read_failure(path, error)) from None
