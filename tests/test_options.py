"""Options: where a value comes from, what is legal, and what an error says."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from _dockeraudit import values as values_room
from _dockeraudit.errors import ConfigurationError
from _dockeraudit.options import (
    OPTION,
    OPTIONS,
    SHARED_VARIABLES,
    Option,
    load_settings,
    option_parser,
)
from _dockeraudit.settings import Settings
from _dockeraudit.values import (
    has_ipv6,
    read_address,
    read_mode,
    read_number,
    read_upstream,
    read_workers,
)

#: a legal text of each option that is none of its default
LEGAL = {
    "listen": "unix:///run/x.sock",
    "upstream": "unix:///run/podman.sock",
    "upstream-tls": "/tmp/certificates",
    "max-connections": "64",
    "shutdown-timeout": "2.5",
    "socket-mode": "0600",
    "socket-group": "7",
    "admin-listen": "tcp://127.0.0.1:9000",
    "http2": "relay",
    "audit-log": "/tmp/x.log",
    "fsync": "always",
    "fingerprint-key": "/tmp/x.key",
    "on-audit-failure": "deny",
    "on-finding": "sh -c 'jq . | mail root'",
    "alert-severity": "MEDIUM",
    "baseline": "/tmp/x.known",
    "answers": "off",
    "log-level": "debug",
    "rules": "/tmp/x.json",
    "only-rules": "aws-access-key",
    "disable-rule": "email-address",
    "allow-secret": "web:0123456789abcdef",
    "own-secrets": "off",
    "mask": "MEDIUM",
    "mask-pass": "archive",
    "workers": "3",
    "scope": "label=team=a",
    "scope-networks": "name=a-*",
    "scope-volumes": "own",
    "scope-images": "name=reg/*",
    "policy": "off",
    "guard": "strict",
    "mode": "learn",
    "allow-from": "10.0.0.0/8",
    "allow-uid": "7",
    "allow-gid": "7",
    "allow-host": "docker.example.net",
    "allow-browser": "yes",
    "tls-cert": "/tmp/x.pem",
    "tls-key": "/tmp/x.pem",
    "tls-client-ca": "/tmp/x.pem",
}
CONFIGURABLE = [option for option in OPTIONS if option.name != "config"]


def name_of(option: Option) -> str:
    return option.name


def load(
    option: Option, arguments: list[str], environ: Mapping[str, str], folder: Path, in_file: str
) -> Any:
    """The option's value where these three sources say so."""
    if in_file:
        (folder / "x.ini").write_text(f"[dockeraudit]\n{option.name} = {in_file}\n")
        arguments = ["--config", str(folder / "x.ini"), *arguments]
    return getattr(load_settings(arguments, environ), option.key)


def on_command_line(option: Option, text: str) -> list[str]:
    return [f"--{option.name}"] if option.metavar is None else [f"--{option.name}={text}"]


# ================================================================================================
# where a value comes from
# ================================================================================================


def test_every_option_has_a_sample_here() -> None:
    assert {option.name for option in CONFIGURABLE} == set(LEGAL)


@pytest.mark.parametrize("option", CONFIGURABLE, ids=name_of)
def test_each_option_is_taken_from_command_line_environment_and_file(
    option: Option, folder: Path
) -> None:
    text = LEGAL[option.name]
    default = load(option, [], {}, folder, "")
    given = load(option, on_command_line(option, text), {}, folder, "")
    assert given != default
    assert load(option, [], {option.variable: text}, folder, "") == given
    assert load(option, [], {}, folder, text) == given


@pytest.mark.parametrize("option", CONFIGURABLE, ids=name_of)
def test_the_help_names_each_option(option: Option) -> None:
    assert f"--{option.name} " in option_parser().format_help()


def test_command_line_wins_over_environment_over_file_over_default(folder: Path) -> None:
    option = OPTION["workers"]
    variable = {option.variable: "5"}
    assert load(option, ["--workers", "6"], variable, folder, "4") == 6
    assert load(option, [], variable, folder, "4") == 5
    assert load(option, [], {}, folder, "4") == 4
    assert load(option, [], {}, folder, "") == read_workers("auto")


def test_the_last_of_a_repeated_option_counts_and_lists_are_joined(folder: Path) -> None:
    assert load_settings(["--workers", "3", "--workers", "4"], {}).workers == 4
    given = ["--disable-rule", "a, b", "--disable-rule", "c"]
    assert load_settings(given, {}).disable_rule == ["a", "b", "c"]


@pytest.mark.parametrize("empty", ["", "  "])
def test_an_empty_variable_is_an_unset_one(empty: str) -> None:
    variables = [option.variable for option in OPTIONS] + list(SHARED_VARIABLES.values())
    assert plain(load_settings([], dict.fromkeys(variables, empty))) == plain(load_settings([], {}))


def plain(settings: Settings) -> dict[str, Any]:
    return {option.key: getattr(settings, option.key) for option in OPTIONS}


@pytest.mark.parametrize("name", ["log-level", "upstream"])
def test_our_own_variable_wins_over_the_shared_one(name: str) -> None:
    option, shared = OPTION[name], SHARED_VARIABLES[name]
    other = {"log-level": "error", "upstream": "/other.sock"}[name]
    assert getattr(load_settings([], {shared: other}), option.key) == other
    both = {shared: other, option.variable: LEGAL[name]}
    assert getattr(load_settings([], both), option.key) == option.read(LEGAL[name])


@pytest.mark.parametrize("option", [o for o in CONFIGURABLE if o.metavar], ids=name_of)
def test_an_empty_value_that_was_given_is_an_error_that_names_its_place(
    option: Option, folder: Path
) -> None:
    with pytest.raises(ConfigurationError, match=f"--{option.name}: the value is empty"):
        load_settings([f"--{option.name}="], {})
    (folder / "x.ini").write_text(f"[dockeraudit]\n{option.name} =\n")
    with pytest.raises(ConfigurationError, match=f"{option.name}: the value is empty"):
        load_settings(["--config", str(folder / "x.ini")], {})


def test_a_list_of_nothing_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match="DOCKERAUDIT_ALLOW_FROM: the value is empty"):
        load_settings([], {"DOCKERAUDIT_ALLOW_FROM": ","})


# ================================================================================================
# what is legal
# ================================================================================================


ILLEGAL = [
    ("listen", "127.0.0.1:2375", "is not tcp://HOST:PORT"),
    ("listen", "tcp://127.0.0.1", "is not tcp://HOST:PORT"),
    ("listen", "tcp://127.0.0.1:65536", "is not tcp://HOST:PORT"),
    ("listen", "tcp://127.0.0.1:\u0661", "is not tcp://HOST:PORT"),
    ("listen", "unix://relative", "is not tcp://HOST:PORT"),
    ("listen", "tcp://no.such.host.invalid:1", "the host is not known"),
    ("upstream", "tcp://127.0.0.1", "is not tcp://HOST:PORT"),
    ("max-connections", "1", "is not a number of connections from 2"),
    ("max-connections", "1_000", "is not a number"),
    ("workers", "-1", "is not a number of workers from 0, or auto"),
    ("workers", "2.5", "is not a number"),
    ("workers", "\u0663", "is not a number"),
    ("shutdown-timeout", "nan", "is not a number of seconds"),
    ("shutdown-timeout", "-1", "is not a number of seconds"),
    ("shutdown-timeout", "1e10", "is not a number of seconds"),
    ("socket-mode", "999", "is not an octal mode"),
    ("socket-group", "no-such-group", "there is no group 'no-such-group'"),
    ("allow-uid", "bob-of-nowhere", "there is no user 'bob-of-nowhere'"),
    ("allow-gid", "bobs-of-nowhere", "there is no group 'bobs-of-nowhere'"),
    ("allow-from", "everywhere", "give an address or a network"),
    ("fsync", "sometimes", "'sometimes' is not one of always, interval, never"),
    ("on-finding", "sh -c 'jq .", "cannot be split into words: No closing quotation"),
    ("on-finding", "jq . | mail root", "no shell runs it, so '.' needs one: sh -c"),
    ("on-finding", "''", "the command is empty"),
    ("alert-severity", "severe", "'severe' is not one of high, medium, low"),
    ("log-level", "loud", "is not one of debug, info"),
]


@pytest.mark.parametrize("name, text, problem", ILLEGAL)
def test_an_illegal_value_is_named_with_its_place_and_what_is_legal(
    name: str, text: str, problem: str
) -> None:
    option = OPTION[name]
    with pytest.raises(ConfigurationError, match=f"--{name}: .*{problem}"):
        load_settings([f"--{name}={text}"], {})
    with pytest.raises(ConfigurationError, match=f"{option.variable}: .*{problem}"):
        load_settings([], {option.variable: text})


def test_illegal_switches_are_named() -> None:
    with pytest.raises(ConfigurationError, match="'perhaps' is not one of 1, true"):
        load_settings([], {"DOCKERAUDIT_ALLOW_BROWSER": "perhaps"})


@pytest.mark.parametrize(
    "text, problem",
    [
        ("[dockeraudit]\nnonsense = 1\n", "'nonsense' is not an option"),
        ("[something]\n", r"\[something\] is not \[dockeraudit\]"),
        ("workers = 1\n", r"line 1: 'workers = 1' is neither a \[section\]"),
        ("[dockeraudit]\n\n; fine\nworkers\n", "line 4: 'workers' is neither"),
    ],
)
def test_what_is_wrong_in_the_file_is_named(folder: Path, text: str, problem: str) -> None:
    (folder / "x.ini").write_text(text)
    with pytest.raises(ConfigurationError, match=problem):
        load_settings([], {"DOCKERAUDIT_CONFIG": str(folder / "x.ini")})


def test_a_file_that_cannot_be_read_is_named(folder: Path) -> None:
    (folder / "x.ini").write_bytes(b"\xff")
    for path in (folder / "none.ini", folder / "x.ini"):
        with pytest.raises(ConfigurationError, match=f"--config: cannot read {path}"):
            load_settings(["--config", str(path)], {})


def test_keys_of_the_file_may_have_underscores_and_capitals(folder: Path) -> None:
    (folder / "x.ini").write_text("[dockeraudit]\nDisable_Rule = a\ndisable-rule = b\n")
    settings = load_settings(["--config", str(folder / "x.ini")], {})
    assert settings.disable_rule == ["a", "b"]


def test_an_unknown_option_is_one_sentence() -> None:
    with pytest.raises(ConfigurationError, match="--nonsense.*see 'dockeraudit serve --help'"):
        load_settings(["--nonsense"], {})


# ================================================================================================
# values
# ================================================================================================


def test_addresses_are_read_as_bind_takes_them() -> None:
    unix = read_address("unix:///run/x.sock")
    assert (unix.family, unix.target, unix.loopback) == (socket.AF_UNIX, "/run/x.sock", True)
    tcp = read_address("tcp://127.0.0.1:80")
    assert (tcp.family, tcp.target, tcp.loopback) == (socket.AF_INET, ("127.0.0.1", 80), True)
    assert not read_address("tcp://0.0.0.0:80").loopback
    if has_ipv6():
        assert read_address("tcp://[::1]:80").loopback


def test_the_wildcard_is_ipv4_where_there_is_no_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(values_room, "has_ipv6", lambda: False)
    address = read_address("tcp://[::]:2375")
    assert (address.family, address.target) == (socket.AF_INET, ("0.0.0.0", 2375))


def test_numbers_and_modes_are_read_whole() -> None:
    assert read_number(float, 0, "x")("2.5") == 2.5 and read_number(int, 0, "x")("10") == 10
    assert read_mode("660") == read_mode("0660") == 0o660
    assert read_upstream("unix:///x") == read_upstream("/x") == "/x"
