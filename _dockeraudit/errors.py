"""Exceptions that carry an HTTP status or an exit status, and the exit statuses."""

from __future__ import annotations

import os

EXIT_FOUND = 1  # `scan` and `verify`: something was found
EXIT_UNAVAILABLE = 69  # sysexits.h EX_UNAVAILABLE: nobody answers, or a file cannot be read
EXIT_DEFECT = 70  # EX_SOFTWARE: an exception that nobody expected
EXIT_CANNOT_LISTEN = 73  # EX_CANTCREAT: an address that cannot be listened on
EXIT_LOST = 74  # EX_IOERR: records of the audit log were lost
EXIT_BUSY = 75  # EX_TEMPFAIL: another process writes the audit log
EXIT_CONFIGURATION = EXIT_BAD_LOG = 78  # EX_CONFIG: a value, or an audit log, that cannot be used


class HTTPError(Exception):
    """A message that is not relayed. `status` answers the client; the text says what is illegal."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class EngineError(HTTPError):
    """The engine cannot be reached or does not speak HTTP; answered with 502."""

    def __init__(self, message: str) -> None:
        super().__init__(502, message)


class Denied(HTTPError):
    """A request or connection that a rule of ours refuses; `rule` names it in `denied` records.

    `keep`: the connection can carry another request.
    """

    def __init__(self, status: int, rule: str, message: str, *, keep: bool = False) -> None:
        super().__init__(status, message)
        self.rule = rule
        self.keep = keep


class OutOfScope(Denied):
    """A request that its listener's scope does not admit.

    `as_engine`: the text is the engine's own sentence, for what does not exist. `recorded`: it is
    a denial; else the engine has no such thing either.
    """

    def __init__(
        self, status: int, message: str, *, as_engine: bool = False, recorded: bool = True
    ) -> None:
        super().__init__(status, "scope", message)
        self.as_engine = as_engine
        self.recorded = recorded


class ConfigurationError(Exception):
    """An option's value that cannot be used; the text names it and what is legal. Exit 78."""


class ListenError(Exception):
    """An address that cannot be listened on; exit 73."""


class AuditLogError(Exception):
    """The audit log cannot be opened; the text is one sentence, `status` the exit status."""

    def __init__(self, message: str, status: int = EXIT_BAD_LOG) -> None:
        super().__init__(message)
        self.status = status


def defect(error: BaseException | None) -> tuple[str, str]:
    """The kind of an exception, and where it was raised, without its values."""
    trace = error.__traceback__ if error else None
    while trace and trace.tb_next:
        trace = trace.tb_next
    if trace is None:
        return type(error).__name__, "?"
    file = os.path.basename(trace.tb_frame.f_code.co_filename)
    return type(error).__name__, f"{file}:{trace.tb_lineno}"
