"""What the policies admit and refuse, as behaviours of the proxies whose variables they take."""
import pytest

from policy import PolicyError, client_filter, learn, native_policy, policy_from_environment


def decide(environ, method, path, mode="tecnativa"):
    policy, _ = policy_from_environment(environ, mode)
    return policy.decide(method, path)


@pytest.mark.parametrize(
    "environ, method, path, allowed",
    [
        ({}, "GET", "/version", True),
        ({}, "GET", "/_ping", True),
        ({}, "GET", "/containers/json", False),
        ({"CONTAINERS": "1"}, "GET", "/containers/x/logs", True),
        ({"CONTAINERS": "1"}, "GET", "/v1.41/containers/x/json", True),
        ({"CONTAINERS": "1"}, "GET", "/containersx/json", False),
        ({"CONTAINERS": "1"}, "POST", "/containers/x/wait", False),
        ({"CONTAINERS": "1"}, "DELETE", "/containers/x", False),
        ({"POST": "1"}, "POST", "/networks/create", False),
        ({"POST": "1", "NETWORKS": "1"}, "POST", "/networks/create", True),
        ({"POST": "1", "NETWORKS": "1"}, "DELETE", "/networks/n", True),
        ({"POST": "1", "CONTAINERS": "1", "EXEC": "1"}, "POST", "/exec/x/start", True),
        ({"ALLOW_START": "1"}, "POST", "/containers/x/start", False),
        ({"ALLOW_START": "1", "POST": "1"}, "POST", "/containers/x/start", True),
        ({"ALLOW_STOP": "1", "POST": "1"}, "POST", "/containers/x/stop/attach", False),
        ({"ALLOW_START": "1", "POST": "1"}, "DELETE", "/containers/x/start", False),
    ],
)
def test_tecnativa(environ, method, path, allowed):
    assert decide(environ, method, path).allowed is allowed


@pytest.mark.parametrize(
    "environ, method, path, allowed",
    [
        ({"ALLOW_RESTARTS": "1"}, "POST", "/containers/x/restart", True),
        ({"ALLOW_START": "1"}, "DELETE", "/containers/x/start", False),
        ({"ALLOW_PAUSE": "1"}, "POST", "/containers/x/pause", True),
        ({"CONTAINERS": "1"}, "GET", "/containers/x/logs", False),
        ({"CONTAINERS": "1"}, "GET", "/containers/parent/alias/logs", False),
        ({"CONTAINERS": "1", "ALLOW_LOGS": "1"}, "GET", "/containers/x/logs", True),
    ],
)
def test_linuxserver(environ, method, path, allowed):
    assert decide(environ, method, path, "linuxserver").allowed is allowed


def test_refusal_names_every_setting_it_would_take():
    assert decide({}, "POST", "/networks/create").admits == ("POST=1", "NETWORKS=1")


def test_auto_is_off_without_variables_and_linuxservers_with_its_own():
    assert policy_from_environment({"LOG_LEVEL": "info", "DISABLE_IPV6": "1"}, "auto") == (None, [])
    assert not decide({"CONTAINERS": "1", "ALLOW_TOP": "0"}, "GET", "/containers/x/logs", "auto").allowed


def test_off_with_a_variable_warns_and_words_count():
    assert policy_from_environment({"POST": "1"}, "off")[1]
    policy, warnings = policy_from_environment({"IMAGES": "true"}, "auto")
    assert policy.decide("GET", "/images/json").allowed and "IMAGES" in warnings[0]


def test_a_value_that_is_neither_is_refused():
    with pytest.raises(PolicyError, match="POST='perhaps'"):
        policy_from_environment({"POST": "perhaps"}, "tecnativa")


def test_native_rules_first_match_decides():
    policy = native_policy(["deny = * /containers/*/archive", "allow = GET,HEAD /containers/**", "allow = POST /exec/*/start"])
    assert not policy.decide("GET", "/containers/x/archive").allowed
    assert policy.decide("HEAD", "/containers/x/y/logs").allowed
    assert policy.decide("POST", "/v1.43/exec/1/start").allowed
    refused = policy.decide("POST", "/containers/abc/kill")
    assert not refused.allowed and refused.admits == ("allow = POST /containers/*/kill",)


@pytest.mark.parametrize("line", ["allow GET /x", "allow = get /x", "permit = * /x", "allow = * x"])
def test_native_rule_errors_name_the_line(line):
    with pytest.raises(PolicyError, match="is no rule"):
        native_policy([line])


def test_client_filter():
    clients = client_filter(["10.0.0.0/8", "::1"], [0], [])
    assert clients.admits({"address": "10.1.2.3"}).allowed
    assert not clients.admits({"address": "192.0.2.1"}).allowed
    assert clients.admits({"uid": 0, "gid": 5}).allowed
    assert not clients.admits({"uid": 7, "gid": 7}).allowed
    assert client_filter([], [], []) is None
    with pytest.raises(PolicyError):
        client_filter(["nonsense"], [], [])


def test_learn_opens_the_least():
    records = [
        {"event": "would_deny", "method": "GET", "path": "/containers/json"},
        {"event": "would_deny", "method": "POST", "path": "/containers/web/restart"},
        {"event": "stream_open", "endpoint": "logs"},
    ]
    lines = learn(records)
    assert lines == ["CONTAINERS=1", "ALLOW_RESTARTS=1", "ALLOW_LOGS=1", "allow = GET /containers/*/logs", "allow = POST /containers/*/restart", "allow = GET /containers/json"]
