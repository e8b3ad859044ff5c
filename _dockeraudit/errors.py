"""Exceptions that carry an HTTP or exit status, and the exit statuses."""

from __future__ import annotations

EXIT_FOUND = 1
EXIT_UNAVAILABLE = 69
EXIT_DEFECT = 70  # sysexits.h EX_SOFTWARE: an exception that nobody expected
EXIT_CANNOT_LISTEN = 73
EXIT_CONFIGURATION = 78


class HTTPError(Exception):
    """A message that is not relayed: `status` is what the client is answered, the text says what was illegal in it."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class EngineError(HTTPError):
    """The engine cannot be reached or does not speak HTTP; answered with 502."""

    def __init__(self, message: str) -> None:
        super().__init__(502, message)


class ConfigurationError(Exception):
    """An option's value that cannot be used: names the value and what is legal; exit 78."""


class ListenError(Exception):
    """An address that cannot be listened on; exit 73."""


class Denied(HTTPError):
    """A request or connection that a rule of ours refuses; `rule` names it in `denied` records.

    `keep`: the connection can carry another request.
    """

    def __init__(self, status: int, rule: str, message: str, *, keep: bool = False) -> None:
        super().__init__(status, message)
        self.rule = rule
        self.keep = keep


EXIT_BUSY = 75
EXIT_LOST = 74
EXIT_BAD_LOG = 78


class AuditLogError(Exception):
    """The audit log cannot be opened; the text is one sentence, `status` the exit status."""

    def __init__(self, message: str, status: int = EXIT_BAD_LOG) -> None:
        super().__init__(message)
        self.status = status
