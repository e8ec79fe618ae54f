"""Connection options arrive in Envoy's configuration, read from its admin interface."""

from __future__ import annotations

import json
import socket
import tempfile
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import sdk


def config_of_envoy() -> Any:
    """Return the configuration of the connection manager of this node's Envoy."""
    (proxy,) = sdk.status().proxies
    with socket.socket(socket.AF_UNIX) as admin:
        admin.connect(str(Path(tempfile.gettempdir(), f"sdk-ingress-{proxy.node_id[:12]}", "admin.sock")))
        connection = HTTPConnection("admin")
        connection.sock = admin
        connection.request("GET", "/config_dump?resource=dynamic_listeners")
        (listener,) = json.load(connection.getresponse())["configs"]
    (chain,) = listener["active_state"]["listener"]["filter_chains"]
    return chain["filters"][0]["typed_config"]


def test_options_of_connections_reach_envoy(ingress: Any) -> None:
    config = config_of_envoy()
    assert config["http2_protocol_options"]["connection_keepalive"] == {"interval": "60s", "timeout": "20s"}
    assert config["common_http_protocol_options"]["idle_timeout"] == "3600s"
    assert "max_connection_duration" not in config["common_http_protocol_options"]
    assert config["drain_timeout"] == "1s"
