"""Help, and hints for what was mistyped; completions and the man page are made of the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable

import pytest
from needs import need_program, skip_outside_ci
from product import PROGRAM
from program import run_program
from proxyprocess import ProxyProcess, plain_environment
from scripted import ScriptedEngine

import dockeraudit
from _dockeraudit.errors import ConfigurationError
from _dockeraudit.helptext import EXIT_STATUSES
from _dockeraudit.listeners import load_listeners
from _dockeraudit.options import GROUPS, OPTION, OPTIONS, load_settings, unknown_variables
from _dockeraudit.presets import PRESETS

COMMANDS = list(dockeraudit.COMMANDS)


def said(*arguments: str, columns: int = 80) -> str:
    """What the program writes to standard output; it must end with status 0 and no complaint."""
    environment = {**plain_environment(), "COLUMNS": str(columns)}
    done = run_program(*arguments, env=environment, text=True)
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


# ================================================================================================
# completions and the manual page
# ================================================================================================


def completed(line: str, folder: Path, script: str) -> list[str]:
    """What bash offers at the end of a line; its last word is the one that is completed."""
    words = line.split(" ")
    (folder / "dockeraudit").write_text(f'#!/bin/sh\nexec {sys.executable} {PROGRAM} "$@"\n')
    (folder / "dockeraudit").chmod(0o755)
    asked = " ".join(f"'{word}'" for word in words)
    run = f"COMP_WORDS=({asked}); COMP_CWORD={len(words) - 1}; _dockeraudit\n"
    done = subprocess.run(
        ["bash", "--norc", "-c", script + run + 'printf "%s\\n" "${COMPREPLY[@]}"'],
        cwd=folder,
        env={**plain_environment(), "PATH": f"{folder}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""
    return done.stdout.split()


@pytest.fixture(scope="module")
def bash_completion() -> str:
    """The script for bash, which must not be older than version 4."""
    need_program("bash")
    version = subprocess.run(["bash", "-c", "echo $BASH_VERSINFO"], capture_output=True, check=True)
    if int(version.stdout) < 4:
        skip_outside_ci("bash is older than 4")
    return said("completions", "bash")


@pytest.mark.parametrize(
    "line, offered",
    [
        ("dockeraudit re", ["report"]),
        ("dockeraudit help ver", ["verify"]),
        ("dockeraudit --fs", ["--fsync"]),
        ("dockeraudit --fsync i", ["interval"]),
        ("dockeraudit --fsync = ne", ["never"]),
        ("dockeraudit --fsync =", ["always", "interval", "never"]),
        ("dockeraudit serve --policy t", ["tecnativa"]),
        ("dockeraudit serve --policy preset : tr", ["traefik"]),
        ("dockeraudit serve --policy = preset : d", ["diun", "dozzle"]),
        ("dockeraudit policy port", ["portainer-readonly"]),
        ("dockeraudit learn --policy ", ["linuxserver", "tecnativa"]),
        ("dockeraudit report --severity M", ["MEDIUM"]),
        ("dockeraudit report --by ", ["rule", "container", "reader"]),
        ("dockeraudit report --js", ["--json"]),
        ("dockeraudit verify app", ["app.log"]),
        ("dockeraudit scan --config x", ["x.ini"]),
        ("dockeraudit completions ", ["bash", "zsh", "fish"]),
        ("dockeraudit --max-connections ", []),
        ("dockeraudit --on-finding ", []),
        ("dockeraudit scan --disable-rule aws-access-k", ["aws-access-key"]),
    ],
)
def test_bash_completes(line: str, offered: list[str], folder: Path, bash_completion: str) -> None:
    for name in ("app.log", "x.ini"):
        (folder / name).write_text("")
    assert completed(line, folder, bash_completion) == offered


def test_bash_completes_what_stands_behind_a_colon(folder: Path, bash_completion: str) -> None:
    offered = completed("dockeraudit serve --policy preset :", folder, bash_completion)
    assert offered == list(PRESETS)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_completion_script_names_every_command_and_option(shell: str) -> None:
    text = said("completions", shell)
    for name, command in dockeraudit.COMMANDS.items():
        assert name in text
        for option in command.parser().option_names():
            assert (f"-l {option[2:]}" if shell == "fish" else option) in text


@pytest.mark.parametrize(
    "shell", ["bash", *(pytest.param(name, marks=pytest.mark.slow) for name in ("zsh", "fish"))]
)
def test_a_shell_reads_its_script(shell: str, folder: Path) -> None:
    need_program(shell)
    path = folder / "script"
    path.write_text(said("completions", shell))
    done = subprocess.run([shell, "-n", str(path)], capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_the_manual_page_names_every_command_option_variable_and_status() -> None:
    page = said("man").replace("\\-", "-")
    for name, command in dockeraudit.COMMANDS.items():
        assert f".SH {name.upper()}\n" in page
        for option in command.parser().option_names():
            assert option in page
    for option in OPTIONS:
        assert f".B {option.variable}\n" in page
    for status, text in EXIT_STATUSES:
        assert f".TP\n.B {status}\n{text}\n" in page


@pytest.mark.slow
@pytest.mark.parametrize("columns", [80, 160])
def test_the_manual_page_is_shown_without_a_warning(columns: int, folder: Path) -> None:
    need_program("man")
    (folder / "d.1").write_text(said("man"))
    done = subprocess.run(
        ["man", "--warnings", "-l", str(folder / "d.1")],
        env={**os.environ, "MANWIDTH": str(columns), "LC_ALL": "C.UTF-8"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "--fsync WHEN" in done.stdout and "EXIT STATUS" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= columns


@pytest.mark.slow
def test_mandoc_finds_nothing_wrong_but_the_missing_date(folder: Path) -> None:
    need_program("mandoc")
    (folder / "d.1").write_text(said("man"))
    command = ["mandoc", "-T", "lint", "-W", "warning", str(folder / "d.1")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert [line for line in done.stdout.splitlines() if "missing date" not in line] == []


def test_the_manual_page_is_shown_by_man_on_a_terminal(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    (folder / "man").write_text("#!/bin/sh\ncat > page\n")
    (folder / "man").chmod(0o755)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert dockeraudit.run_command(["man"]) == 0
    assert capsys.readouterr().out == "" and ".TH DOCKERAUDIT" in (folder / "page").read_text()
    monkeypatch.setenv("PATH", "/nonexistent")
    assert dockeraudit.run_command(["man"]) == 0
    assert ".TH DOCKERAUDIT" in capsys.readouterr().out
