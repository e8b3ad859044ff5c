"""What the clients of the presets ask for, and what each preset must refuse.

The requests are facts of the clients' own source: Beszel's agent/docker.go, Diun's pkg/docker,
Dozzle's internal/docker/client.go, homepage's src/pages/api/docker and service-helpers.js (with
dockerode's paths), netdata's go.d collector and cgroup-name.sh, Portainer's app/docker and its
snapshot, Prometheus's discovery/moby, Traefik's pdocker.go and pswarm.go, Watchtower's
pkg/container/client.go, and docker build, buildx and push.

In a target C is a running container, I its image, N a name of nothing: what would change something
is asked of N, so that an engine answers 400, 404 or 409.
"""

from __future__ import annotations

#: preset → requests, as `METHOD TARGET` with semicolons between
CLIENT_REQUESTS = {
    "beszel": (
        "GET /version; GET /info; GET /containers/json; GET /containers/C/json; "
        "GET /containers/C/stats?stream=0&one-shot=1; GET /containers/C/logs?stdout=1&stderr=1"
    ),
    "ci-build": (
        "HEAD /_ping; GET /_ping; GET /v1.41/version; GET /v1.41/info; "
        "POST /v1.41/build?remote=http://127.0.0.1:1/N; POST /v1.41/build/cancel?id=N; "
        "POST /v1.41/session; POST /v1.41/grpc; POST /v1.41/auth; GET /v1.41/images/json; "
        "POST /v1.41/images/create?fromImage=127.0.0.1:1/N; GET /v1.41/images/I/json; "
        "POST /v1.41/images/N/tag?repo=n; POST /v1.41/images/127.0.0.1:1/a/N/push; "
        "GET /v1.41/distribution/127.0.0.1:1/a/N/json"
    ),
    "diun": (
        "HEAD /_ping; GET /v1.41/version; GET /v1.41/containers/json?filters=%7B%7D; "
        "GET /v1.41/containers/C/json; GET /v1.41/images/I/json; GET /v1.41/services"
    ),
    "dozzle": (
        "HEAD /_ping; GET /v1.41/info; GET /v1.41/version; GET /v1.41/containers/json?all=1; "
        "GET /v1.41/containers/C/json; GET /v1.41/events?since=1&until=2; "
        "GET /v1.41/containers/C/logs?stdout=1&stderr=1&timestamps=1&tail=300; "
        "GET /v1.41/containers/N/stats?stream=1"
    ),
    "homepage": (
        "GET /containers/json?all=true; GET /containers/C/json; "
        "GET /containers/C/stats?stream=false; GET /services; GET /tasks"
    ),
    "netdata": (
        "HEAD /_ping; GET /v1.41/info; GET /v1.41/images/json; "
        "GET /v1.41/containers/json?all=1&filters=%7B%22health%22%3A%7B%22none%22%3Atrue%7D%7D; "
        "GET /containers/C/json"
    ),
    "portainer-readonly": (
        "HEAD /_ping; GET /_ping; GET /version; GET /info; GET /events?since=1&until=2; "
        "GET /system/df; GET /containers/json?all=1; GET /containers/C/json; "
        "GET /containers/C/logs?stdout=1; GET /containers/N/stats?stream=false; "
        "GET /containers/C/top; GET /images/json; GET /images/I/json; GET /images/I/history; "
        "GET /networks; GET /networks/N; GET /volumes; GET /volumes/N; GET /plugins; "
        "GET /services; GET /services/N; GET /services/N/logs?stdout=1; GET /tasks; GET /tasks/N; "
        "GET /tasks/N/logs?stdout=1; GET /nodes; GET /nodes/N; GET /configs; GET /configs/N; "
        "GET /secrets; GET /secrets/N"
    ),
    "prometheus": (
        "HEAD /_ping; GET /v1.41/containers/json?filters=%7B%7D; GET /v1.41/networks; "
        "GET /v1.41/services; GET /v1.41/tasks; GET /v1.41/nodes"
    ),
    "traefik": (
        "HEAD /_ping; GET /v1.24/version; GET /v1.41/containers/json?all=1; "
        "GET /v1.41/containers/C/json; GET /v1.41/events?since=1&until=2; GET /v1.41/services; "
        "GET /v1.41/tasks; GET /v1.41/networks; GET /v1.41/nodes/N"
    ),
    "watchtower": (
        "HEAD /_ping; GET /v1.41/containers/json; GET /v1.41/containers/C/json; "
        "GET /v1.41/images/I/json; POST /v1.41/images/create?fromImage=127.0.0.1:1/N; "
        "POST /v1.41/containers/N/kill?signal=SIGTERM; DELETE /v1.41/containers/N?force=1; "
        "POST /v1.41/containers/create?name=N; POST /v1.41/containers/N/rename?name=M; "
        "POST /v1.41/networks/N/disconnect; POST /v1.41/networks/N/connect; "
        "POST /v1.41/containers/N/start; DELETE /v1.41/images/N?force=1"
    ),
}

#: what no preset admits
NEVER = (
    "POST /containers/C/exec; POST /exec/N/start; POST /containers/C/attach?stream=1; "
    "GET /containers/C/attach/ws; GET /containers/C/export; GET /containers/C/archive?path=/; "
    "PUT /containers/C/archive?path=/; POST /containers/C/update; POST /containers/prune; "
    "POST /commit?container=N; GET /images/get?names=I; GET /images/I/get; POST /images/load; "
    "POST /images/prune; POST /networks/create; DELETE /networks/N; POST /volumes/create; "
    "DELETE /volumes/N; POST /services/create; DELETE /services/N; POST /secrets/create; "
    "POST /swarm/init; GET /swarm; GET /swarm/unlockkey; POST /plugins/pull; POST /build/prune; "
    "DELETE /containers/C/json; POST /containers/C/logs; OPTIONS /containers/json; "
    "GET /containers/json/../C/archive; GET /containers/C%2Farchive"
)
#: what a preset refuses besides, unless its client asks for it
ELSE = (
    "POST /containers/create; POST /containers/N/start; POST /containers/N/stop; "
    "POST /containers/N/restart; POST /containers/N/kill; POST /containers/N/rename?name=M; "
    "DELETE /containers/N; POST /images/create?fromImage=N; DELETE /images/N; POST /build; "
    "POST /session; POST /auth; GET /containers/C/logs; GET /containers/C/top; "
    "GET /containers/C/changes; GET /secrets; GET /configs; GET /volumes; GET /events; GET /info; "
    "POST /networks/N/connect"
)


def requests_in(text: str) -> list[tuple[str, str]]:
    """(method, target) of each request in one of the texts above."""
    pairs = [request.strip().partition(" ") for request in text.split(";")]
    return [(method, target) for method, _, target in pairs]
