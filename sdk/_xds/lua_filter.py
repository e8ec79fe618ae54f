"""The last of several `application` values counts, as in Ray Serve. Envoy joins them, and looks for "a,b"."""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.protobuf.any_pb2 import Any as Packed

from sdk._gen import envoy_pb2 as pb
from sdk._xds.packing import pack

if TYPE_CHECKING:
    from collections.abc import Mapping

_NAME = "last-value"
# There is no configuration that picks one of several values. A value with a comma in it stays as it is.
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


def last_value_filter(key: str) -> pb.HttpFilter:
    """Returns the filter that leaves the last value of a header, and has the route chosen again.

    It is off but for routes that switch it on: a look at the header of each call would cost a tenth of all that Envoy
    does for a call.
    """
    script = pb.Lua(default_source_code=pb.DataSource(inline_string=_SCRIPT.format(key=key)))
    return pb.HttpFilter(name=_NAME, typed_config=pack(script), disabled=True)


def enable_last_value() -> Mapping[str, Packed]:
    """Returns what a route has in its ``typed_per_filter_config`` to switch the filter on."""
    return {_NAME: pack(pb.RouteFilterConfig(config=Packed()))}
