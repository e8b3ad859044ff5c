"""Help, and hints for what was mistyped; completions and the man page are made of the same."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable

import pytest
from product import PROGRAM
from proxyprocess import ProxyProcess, plain_environment
from scripted import ScriptedEngine

import dockeraudit
from _dockeraudit.errors import ConfigurationError
from _dockeraudit.listeners import load_listeners
from _dockeraudit.options import GROUPS, OPTION, OPTIONS, load_settings, unknown_variables

COMMANDS = list(dockeraudit.COMMANDS)


def said(*arguments: str, columns: int = 80) -> str:
    """What the program writes to standard output; it must end with status 0 and no complaint."""
    done = subprocess.run(
        [sys.executable, PROGRAM, *arguments],
        env={**plain_environment(), "COLUMNS": str(columns)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), (arguments, done.stderr)
    return done.stdout


# ================================================================================================
# help
# ================================================================================================


@pytest.mark.parametrize("columns", [80, 160])
@pytest.mark.parametrize("arguments", [(), *((name,) for name in COMMANDS)], ids=str)
def test_help_fits_the_terminal(arguments: tuple[str, ...], columns: int) -> None:
    text = said("help", *arguments, columns=columns)
    assert max(map(len, text.splitlines())) < columns
    assert text.startswith("usage: dockeraudit") and "`" not in text


def test_the_overview_names_every_command_and_every_option_in_its_group() -> None:
    text = said("--help")
    assert text == said("help") == said("-h")
    commands = text.partition("\ncommands (")[2].partition("\n\n")[0].splitlines()[1:]
    named = [line.split()[0] for line in commands if line[2] != " "]
    assert named == COMMANDS
    places = [text.index(f"\n  --{option.name} ") for option in OPTIONS]
    assert places == sorted(places)
    for first, title in GROUPS.items():
        assert text.partition(f"\n{title}:\n")[2].startswith(f"  --{first} ")


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_is_what_its_own_help_option_says(name: str) -> None:
    assert said("help", name) == said(name, "--help")


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_a_help_of_its_own(name: str) -> None:
    text = said("help", name)
    assert text.startswith(f"usage: dockeraudit {'[serve]' if name == 'serve' else name} ")
    assert dockeraudit.COMMANDS[name].summary.split()[0] in text


def test_healthcheck_shows_what_it_looks_at_and_takes_what_serve_takes() -> None:
    text = said("healthcheck", "--help")
    assert "--listen URL" in text and "--fsync" not in text
    with pytest.raises(ConfigurationError, match="--fsync: 'x' is not one of"):
        dockeraudit.run_command(["healthcheck", "--fsync", "x"])


def test_rules_are_listed_for_programs() -> None:

    (rule,) = json.loads(said("rules", "--json", "--only-rules", "aws-access-key"))
    assert rule["name"] == "AWS Access Key" and rule["severity"] == "HIGH" and not rule["custom"]


# ================================================================================================
# what was mistyped
# ================================================================================================


@pytest.mark.parametrize(
    "arguments, hint",
    [
        (["reprot"], "'reprot' is not a command (did you mean 'report'?); there are serve, scan"),
        (["help", "sacn"], "'sacn' is not a command (did you mean 'scan'?)"),
        (["xyz"], "'xyz' is not a command; there are serve"),
        (["--lissten=x"], "--lissten=x (did you mean '--listen'?); see 'dockeraudit serve --help'"),
        (["scan", "--fail_on", "HIGH"], "(did you mean '--fail-on'?); see 'dockeraudit scan --"),
        (["rules", "--mark-down"], "(did you mean '--markdown'?)"),
        (["verify", "--jsn", "x"], "(did you mean '--json'?)"),
        (["verify", "--xyz", "x"], "unrecognized arguments: --xyz; see"),
    ],
)
def test_a_mistyped_word_gets_the_one_that_was_meant(arguments: list[str], hint: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        dockeraudit.run_command(arguments)
    assert hint in str(caught.value)


def test_a_mistyped_key_of_the_file_gets_the_one_that_was_meant(folder: Path) -> None:
    (folder / "x.ini").write_text("[dockeraudit]\naudit_logs = x\n")
    with pytest.raises(ConfigurationError, match=r"'audit-logs' .*\(did you mean 'audit-log'\?\)"):
        load_settings(["--config", str(folder / "x.ini")], {})
    (folder / "x.ini").write_text("[listener x]\nlisten = unix:///a\nallow-user = 1\n")
    settings = load_settings(["--config", str(folder / "x.ini")], {})
    with pytest.raises(ConfigurationError, match=r"'allow-user' \(did you mean 'allow-uid'\?\)"):
        load_listeners(settings, {}, lambda level, text: None)


def test_a_mistyped_variable_is_said_with_the_one_that_was_meant(
    folder: Path, start_proxy: Callable[..., ProxyProcess]
) -> None:
    with ScriptedEngine(str(folder / "engine.sock")) as engine:
        environment = {"DOCKERAUDIT_AUDITLOG": "x", "DOCKERAUDIT_MODE": "enforce"}
        proxy = start_proxy(engine.path, env=environment)
        lines = [line for line in proxy.errors.read_text().splitlines() if "variable" in line]
    assert lines == [
        "dockeraudit: warning: the variable DOCKERAUDIT_AUDITLOG is no option's and does nothing "
        "(did you mean 'DOCKERAUDIT_AUDIT_LOG'?)"
    ]


def test_variables_of_options_and_of_a_service_of_our_name_are_known() -> None:
    ours = {option.variable: "x" for option in OPTIONS}
    made: dict[str, Any] = dict.fromkeys(
        "DOCKERAUDIT_PORT DOCKERAUDIT_PORT_2375_TCP DOCKERAUDIT_PORT_2375_TCP_ADDR "
        "DOCKERAUDIT_SERVICE_HOST DOCKERAUDIT_SERVICE_PORT_HTTP DOCKERAUDIT_NAME "
        "DOCKERAUDIT_ENV_PATH DOCKERAUDIT_ACCESS".split()
    )
    assert unknown_variables({**ours, **made, "OTHER": "x"}) == []
    assert len(unknown_variables({"DOCKERAUDIT_X": "", OPTION["mode"].variable: ""})) == 1
