"""Listeners from options and file, each with its policy, clients and TLS."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from _dockeraudit.errors import ConfigurationError
from _dockeraudit.listeners import load_listeners
from _dockeraudit.options import load_settings


def listeners(
    folder: Any, ini: str, environ: Mapping[str, str] = {}, *arguments: str
) -> tuple[list[Any], list[str]]:
    """The listeners of a file, and what was warned of."""
    path = folder / "config.ini"
    path.write_text(ini)
    said: list[str] = []
    settings = load_settings(["--config", str(path), *arguments], environ)
    return load_listeners(settings, environ, lambda level, text: said.append(text)), said


def test_each_listener_has_its_own_policy(folder: Any) -> None:
    found, said = listeners(
        folder,
        "[dockeraudit]\npolicy = tecnativa\n"
        f"[listener traefik]\nlisten = unix://{folder}/a.sock\nallow = GET /containers/json\n"
        f"[listener ci]\nlisten = unix://{folder}/b.sock\npolicy = off\nallow-uid = 0\n"
        f"[listener dozzle]\nlisten = unix://{folder}/c.sock\nCONTAINERS = 1\nALLOW_LOGS = 1\n"
        f"[listener rest]\nlisten = unix://{folder}/d.sock\nsocket-mode = 0600\nsocket-group = 0\n",
        {"IMAGES": "1"},
    )
    traefik, ci, dozzle, rest = found
    assert [listener.name for listener in found] == ["traefik", "ci", "dozzle", "rest"]
    assert (
        traefik.policy.title == "rules" and not traefik.policy.decide("GET", "/images/json").allowed
    )
    assert (
        ci.policy is None
        and ci.clients.admits({"uid": 0}).allowed
        and not ci.clients.admits({"uid": 5, "gid": 5}).allowed
    )
    assert (
        dozzle.policy.title == "linuxserver"
        and dozzle.policy.decide("GET", "/containers/x/logs").allowed
    )
    assert not dozzle.policy.decide("GET", "/images/json").allowed, (
        "its own variables, not the environment's"
    )
    assert rest.policy.title == "tecnativa" and rest.policy.decide("GET", "/images/json").allowed
    assert (rest.socket_mode, rest.socket_group, ci.socket_mode, ci.socket_group) == (
        0o600,
        0,
        0o660,
        None,
    )
    assert len(said) == 1, said


def test_rules_without_a_policy_are_a_policy(folder: Any) -> None:
    ini = f"[dockeraudit]\nlisten = unix://{folder}/a.sock\nallow = GET /version\n"
    assert listeners(folder, ini)[0][0].policy.title == "rules"
    assert listeners(folder, ini, {"DOCKERAUDIT_POLICY": "auto"})[0][0].policy.title == "rules"
    found, said = listeners(folder, ini, {"DOCKERAUDIT_POLICY": "off"})
    assert found[0].policy is None and "do not count" in said[0]
    with pytest.raises(Exception, match="say which counts"):
        listeners(folder, ini, {"DOCKERAUDIT_POLICY": "auto", "CONTAINERS": "1"})


def test_rules_from_the_environment() -> None:
    environ = {
        "DOCKERAUDIT_ACCESS": "allow = GET /version; deny = * /**\nallow = GET /x",
        "DOCKERAUDIT_LISTEN": "unix:///x.sock",
    }
    found = load_listeners(load_settings([], environ), environ, lambda level, text: None)
    assert (
        found[0].policy.decide("GET", "/version").allowed
        and not found[0].policy.decide("GET", "/x").allowed
    )


def test_learning_without_a_policy_records_every_request(folder: Any) -> None:
    found, _ = listeners(folder, f"[dockeraudit]\nmode = learn\nlisten = unix://{folder}/a.sock\n")
    assert not found[0].policy.decide("GET", "/_ping").allowed


def test_the_other_variables_of_the_original_proxies_count() -> None:
    environ = {
        "SOCKET_PATH": "/run/podman.sock",
        "DISABLE_IPV6": "1",
        "LOG_LEVEL": "err",
        "DOCKERAUDIT_LISTEN": "tcp://[::]:2375",
    }
    settings = load_settings([], environ)
    assert settings.upstream == "/run/podman.sock" and settings.log_level == "err"
    assert (
        load_settings([], {**environ, "DOCKERAUDIT_UPSTREAM": "/own.sock"}).upstream == "/own.sock"
    )
    address = load_listeners(settings, environ, lambda level, text: None)[0].address
    assert address.target == ("0.0.0.0", 2375)


@pytest.mark.parametrize(
    "section, problem",
    [
        ("listen = unix:///a\nnonsense = 1", "nonsense"),
        ("allow = GET /x", "has no 'listen"),
        ("listen = unix:///a\nallow = get /x", "is no rule"),
        ("listen = tcp://127.0.0.1:1\ntls-key = /x", "need --tls-cert"),
        ("listen = tcp://127.0.0.1:1\ntls-cert = /nonexistent", "cannot load"),
        ("listen = unix:///a\nallow-uid = nobody-of-this-name", "there is no"),
        ("listen = unix:///a\npolicy = rules", "has no rule"),
        ("listen = unix:///a\ncontainers = perhaps\nimages = 1", "CONTAINERS='perhaps'"),
    ],
)
def test_a_bad_section_is_named(folder: Any, section: str, problem: str) -> None:
    with pytest.raises(Exception, match=problem):
        listeners(folder, f"[listener x]\n{section}\n")


@pytest.mark.parametrize("from_environment", [False, True])
@pytest.mark.parametrize(
    "option, value, listen",
    [
        ("allow-uid", "0", "tcp://127.0.0.1:1"),
        ("allow-gid", "0", "tcp://127.0.0.1:1,tcp://127.0.0.1:2"),
        ("allow-from", "10.0.0.0/8", "unix:///a"),
        ("tls-client-ca", "/ca.pem", "unix:///a"),
    ],
)
def test_a_restriction_that_fits_no_listener_is_an_error(
    option: str, value: str, listen: str, from_environment: bool
) -> None:
    environ = {"DOCKERAUDIT_LISTEN": listen}
    arguments = [] if from_environment else [f"--{option}", value]
    if from_environment:
        environ[f"DOCKERAUDIT_{option.upper().replace('-', '_')}"] = value
    settings = load_settings(arguments, environ)
    with pytest.raises(ConfigurationError, match=f"{option} restricts .* there is none"):
        load_listeners(settings, environ, lambda level, text: None)


def test_a_restriction_that_fits_one_of_the_listeners_is_fine() -> None:
    environ = {"DOCKERAUDIT_LISTEN": "tcp://127.0.0.1:1,unix:///a"}
    settings = load_settings(["--allow-uid", "0", "--allow-from", "127.0.0.0/8"], environ)
    tcp, unix = load_listeners(settings, environ, lambda level, text: None)
    assert not tcp.clients.admits({"address": "192.0.2.1"}).allowed
    assert not unix.clients.admits({"uid": 7, "gid": 0}).allowed


@pytest.mark.parametrize(
    "section",
    ["listen = tcp://127.0.0.1:1\nallow-uid = 0", "listen = unix:///a\nallow-from = 10.0.0.0/8"],
)
def test_a_restriction_that_does_not_fit_its_own_listener_is_an_error(
    folder: Any, section: str
) -> None:
    other = "[listener y]\nlisten = unix:///b\n[listener z]\nlisten = tcp://127.0.0.1:2\n"
    with pytest.raises(ConfigurationError, match="restricts .* there is none"):
        listeners(folder, f"[listener x]\n{section}\n{other}")


def test_a_list_for_all_restricts_only_the_listeners_that_it_fits(folder: Any) -> None:
    found, _ = listeners(
        folder,
        "[dockeraudit]\nallow-uid = 7\n"
        "[listener x]\nlisten = tcp://127.0.0.1:1\n[listener y]\nlisten = unix:///a\n",
    )
    assert found[0].clients is None
    assert not found[1].clients.admits({"uid": 0, "gid": 0}).allowed
