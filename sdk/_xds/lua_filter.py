"""Lua filters that change the `application` metadata of a call before it is routed.

One keeps the last of several values, as Ray Serve does: Envoy joins several values of a header, and would look for an
application named "a,b". The other takes it from the path, ``/APPLICATION/pkg.Service/Method``.
https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_filters/lua_filter
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.protobuf.any_pb2 import Any as Packed

from sdk._gen import envoy_pb2 as pb
from sdk._xds.packing import pack

if TYPE_CHECKING:
    from collections.abc import Mapping

_NAME, _FROM_PATH = "last-value", "application-of-path"
# No configuration of Envoy picks one of several values. A single value that contains a comma is left unchanged.
_SCRIPT = """
function envoy_on_request(handle)
  local headers = handle:headers()
  local count = headers:getNumValues("{key}")
  if count > 1 then
    local last = headers:getAtIndex("{key}", count - 1)
    headers:remove("{key}")
    headers:add("{key}", last)
    handle:clearRouteCache()
  end
end
"""


_PATH_SCRIPT = """
function envoy_on_request(handle)
  local headers = handle:headers()
  local application, path = string.match(headers:get(":path"), "^/([^/]+)(/.*)$")
  if application then
    headers:replace(":path", path)
    headers:replace("{key}", application)
    handle:clearRouteCache()
  end
end
"""


def last_value_filter(key: str) -> pb.HttpFilter:
    """Return the filter that keeps the last value of a header and clears the route cache, so Envoy routes again.

    It is disabled except on routes that enable it: reading the header of each call would add a tenth to the time that
    Envoy spends on a call.
    """
    script = pb.Lua(default_source_code=pb.DataSource(inline_string=_SCRIPT.format(key=key)))
    return pb.HttpFilter(name=_NAME, typed_config=pack(script), disabled=True)


def enable_last_value() -> Mapping[str, Packed]:
    """Return the ``typed_per_filter_config`` entry that enables the filter on a route."""
    return {_NAME: pack(pb.RouteFilterConfig(config=Packed()))}


def path_filter(key: str) -> pb.HttpFilter:
    """Return the filter that takes a header from the first part of the path, and has Envoy route the rest.

    It is disabled except on routes that enable it, as the other one.
    """
    script = pb.Lua(default_source_code=pb.DataSource(inline_string=_PATH_SCRIPT.format(key=key)))
    return pb.HttpFilter(name=_FROM_PATH, typed_config=pack(script), disabled=True)


def enable_path() -> Mapping[str, Packed]:
    """Return the ``typed_per_filter_config`` entry that enables :func:`path_filter` on a route."""
    return {_FROM_PATH: pack(pb.RouteFilterConfig(config=Packed()))}
