"""The last of several `application` values counts, as in Ray Serve. Envoy would look for an application "a,b"."""

from __future__ import annotations

from sdk.gen import envoy_pb2 as pb
from sdk.xds.matching import Predicate, header_matches
from sdk.xds.typed import pack

# There is no configuration that picks one of several values. The script runs for calls with several, or with a comma
# in the only one, which stays as it is; all others pay for one look at a header.
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


def last_value(key: str) -> pb.HttpFilter:
    """Returns the filter that leaves the last value of a header, before the route is chosen."""
    script = pb.Lua(default_source_code=pb.DataSource(inline_string=_SCRIPT.format(key=key)))
    skip = pb.XdsTypedExtensionConfig(name="skip", typed_config=pack(pb.SkipFilter()))
    unless_several = pb.Matcher(
        matcher_list=pb.Matcher.MatcherList(
            matchers=[
                pb.Matcher.MatcherList.FieldMatcher(
                    predicate=Predicate(not_matcher=header_matches(key, ".*,.*")),
                    on_match=pb.Matcher.OnMatch(action=skip),
                )
            ]
        )
    )
    return pb.HttpFilter(
        name="last-value",
        typed_config=pack(
            pb.ExtensionWithMatcher(
                extension_config=pb.CoreTypedExtensionConfig(name="envoy.filters.http.lua", typed_config=pack(script)),
                xds_matcher=unless_several,
            )
        ),
    )
