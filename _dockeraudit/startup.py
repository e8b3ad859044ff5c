"""What a command needs before it begins: the rules that were chosen, and the audit log."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Callable

from _dockeraudit import __version__
from _dockeraudit.auditlog import QUEUE_LIMIT, AuditLog
from _dockeraudit.diagnostics import Diagnostics
from _dockeraudit.errors import ConfigurationError
from _dockeraudit.logfile import load_fingerprint_key
from _dockeraudit.scanner import Scanner
from _dockeraudit.settings import Settings
from _dockeraudit.userrules import RuleError, load_rules, select_rules
from patterns import RULES


def load_scanner(settings: Settings) -> Scanner:
    """The rules that were chosen; raises ConfigurationError."""
    try:
        own = load_rules(settings.rules) if settings.rules else ()
        return Scanner(
            select_rules(
                RULES + tuple(own), only=settings.only_rules, disable=settings.disable_rule
            )
        )
    except (RuleError, OSError) as error:
        raise ConfigurationError(str(error)) from None


def open_log(
    settings: Settings, scanner: Scanner, listen: Sequence[str], diagnostics: Diagnostics,
    write: Callable[[int, bytes], int] = os.write, queue_limit: int = QUEUE_LIMIT,
) -> AuditLog:  # fmt: skip
    """The audit log, open; raises AuditLogError."""
    key = load_fingerprint_key(settings.fingerprint_key)
    if settings.fingerprint_key is None:
        diagnostics.say(
            "notice",
            "the fingerprints' key lives for this run only; --fingerprint-key FILE keeps it",
        )
    log = AuditLog(
        settings.audit_log,
        key,
        key_path=settings.fingerprint_key,
        fsync=settings.fsync,
        diagnose=diagnostics.say,
        allow=settings.allow_secret,
        write=write,
        queue_limit=queue_limit,
    )
    log.open(
        version=__version__,
        pid=os.getpid(),
        listen=list(listen),
        upstream=settings.upstream,
        rules=len(scanner.rules),
    )
    return log
