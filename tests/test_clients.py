"""Who may connect: networks, users and groups."""

from __future__ import annotations

from typing import Any

import pytest

from _dockeraudit import clients as clients_room
from _dockeraudit.clients import client_filter, read_group, read_network, read_user
from _dockeraudit.errors import ConfigurationError


def test_networks_and_accounts_that_are_not_listed_are_refused() -> None:
    clients = client_filter([read_network("10.0.0.0/8"), read_network("::1")], [0], [])
    assert (
        clients.admits({"address": "10.1.2.3"}).allowed
        and clients.admits({"address": "::1"}).allowed
    )
    refused = clients.admits({"address": "192.0.2.1"})
    assert refused == (False, "allow-from", ("allow-from = 192.0.2.1",))
    assert clients.admits({"uid": 0, "gid": 5}).allowed
    assert not clients.admits({"uid": 7, "gid": 7}).allowed
    assert client_filter([], [], [0]).admits({"uid": 7, "gid": 0}).allowed
    assert client_filter([], [], []) is None


def test_a_supplementary_group_admits_as_the_primary_one_does() -> None:
    clients = client_filter([], [], [4242])
    assert clients.admits({"uid": 7, "gid": 4242, "groups": ()}).allowed
    assert clients.admits({"uid": 7, "gid": 7, "groups": (4, 4242)}).allowed
    assert not clients.admits({"uid": 4242, "gid": 7, "groups": (4,)}).allowed


def test_the_highest_uid_is_admitted() -> None:
    clients = client_filter([], [read_user(str(2**32 - 2))], [])
    assert clients.admits({"uid": 2**32 - 2, "gid": 0}).allowed


@pytest.mark.parametrize("read", [read_user, read_group])
@pytest.mark.parametrize(
    "name", ["bob-of-nowhere", "-1", "4294967295", "1e3", "\u00b2", "a\0b", ""]
)
def test_an_account_that_does_not_exist_is_an_error(read: Any, name: str) -> None:
    with pytest.raises(ConfigurationError, match="there is no .* give a number or a name"):
        read(name)


def test_an_account_is_known_by_its_name_or_number() -> None:
    assert (read_user("root"), read_group("root"), read_user("007")) == (0, 0, 7)


def test_a_network_that_is_none_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match="give an address or a network"):
        read_network("nonsense")


def test_without_the_files_of_accounts_numbers_still_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(clients_room, "pwd", None)
    monkeypatch.setattr(clients_room, "grp", None)
    assert (read_user("7"), read_group("8")) == (7, 8)
    for read in (read_user, read_group):
        with pytest.raises(ConfigurationError, match="give a number"):
            read("root")
