"""What a container's inspect shows: its text as `docker inspect` prints it, to findings.

Each secret variable stands in Config.Env, where `container-env` would find it in every container.
So there only the other rules count: what they find is a secret by its shape or by its name. All
the rest (command line, labels, output of health checks) is searched for the container's own
secrets too. Performs no I/O.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from _dockeraudit.ownsecrets import AnyScanner, secret_of, shown_of
from _dockeraudit.rules import Match

JSON_INDENT = 4  # as docker prints it, so that a finding's line is the line there
ENV_PLACE = "\x7f the variables \x7f"  # where Config.Env stands; an answer of the engine has no DEL


class InspectFinding(NamedTuple):
    """A secret in an inspect. `shown`: what of it may be shown, redacted. None: no fingerprint."""

    match: Match
    shown: bytes
    secret: bytes | None
    line: int


def inspect_findings(answer: Any, scanner: AnyScanner) -> Iterator[InspectFinding]:
    """The secrets in an inspect's answer, MEDIUM or above: it is full of what is LOW."""
    text, first, last = inspect_text(answer)
    for match in scanner.scan_lines(text):
        listed = first <= match.start < last
        if match.rule.severity == "LOW" or match.placeholder:
            continue
        if listed and match.rule.find == "env":
            continue
        secret = None if match.rule.multiline else secret_of(text, match)
        line = text.count(b"\n", 0, match.start) + 1
        yield InspectFinding(match, shown_of(text, match), secret, line)


def inspect_text(answer: Any) -> tuple[bytes, int, int]:
    """An answer as `docker inspect` prints it, and where in this text its Config.Env is."""
    config = answer.get("Config") if isinstance(answer, dict) else None
    config = config if isinstance(config, dict) else {}
    env = config.get("Env")
    if not isinstance(env, list) or not env:
        text = json.dumps([answer], indent=JSON_INDENT).encode("ascii")
        return text, 0, 0
    marked = [{**answer, "Config": {**config, "Env": [ENV_PLACE]}}]
    before, _, after = json.dumps(marked, indent=JSON_INDENT).partition(json.dumps(ENV_PLACE))
    indent = before[before.rfind("\n") :]
    variables = f",{indent}".join(json.dumps(each) for each in env)
    text = f"{before}{variables}{after}".encode("ascii")
    return text, len(before), len(before) + len(variables)
