"""Lua script that finds the name of an API key by the key's SHA-256.

Envoy's own filter for API keys (``api_key_auth``) compares with keys in the clear, which would be in its configuration,
in a dump of it, and in the file. Asking the proxy (``ext_authz``) would cost 200 µs a call, and fail while it restarts.
So Envoy computes the digest itself: LuaJIT has 32-bit operations, and one block takes some microseconds.
https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_filters/lua_filter
https://csrc.nist.gov/pubs/fips/180-4/upd1/final
"""

from __future__ import annotations

from collections.abc import Mapping

#: The metadata in which a client sends its API key.
API_KEY_METADATA = "x-api-key"
#: Name of the statistic of refused keys, after ``http.grpc.lua.``.
DENIED_STATISTIC = "api_key_denied"
#: Namespace and key of the reason in the call's metadata, for the access log: Envoy's own is ``lua_response``.
DETAILS_KEY = ("sdk", "details")
_DENIED_DETAILS = "api_key_access_denied"
# Longer ones are refused before their digest is computed.
_MAX_KEY = 512

_SCRIPT = """
local names = {%(names)s}
local band, bnot, bxor, ror, rshift = bit.band, bit.bnot, bit.bxor, bit.ror, bit.rshift
local tobit, tohex = bit.tobit, bit.tohex
local K = {}
local H = {}
do  -- the first 32 bits of the fractional parts of the roots of the first primes
  local function fraction(x)
    return tobit(math.floor((x - math.floor(x)) * 4294967296))
  end
  local count, candidate = 0, 2
  while count < 64 do
    local is_prime = true
    for i = 2, math.floor(math.sqrt(candidate)) do
      if candidate %% i == 0 then is_prime = false break end
    end
    if is_prime then
      count = count + 1
      if count <= 8 then H[count] = fraction(math.sqrt(candidate)) end
      K[count] = fraction(candidate ^ (1 / 3))
    end
    candidate = candidate + 1
  end
end
local W = {}

local function sha256(text)
  local length = #text
  text = text .. "\\128" .. string.rep("\\0", (55 - length) %% 64) .. "\\0\\0\\0\\0"
  local bits = length * 8
  text = text .. string.char(rshift(bits, 24), band(rshift(bits, 16), 255), band(rshift(bits, 8), 255), band(bits, 255))
  local h1, h2, h3, h4, h5, h6, h7, h8 = H[1], H[2], H[3], H[4], H[5], H[6], H[7], H[8]
  for at = 1, #text, 64 do
    for i = 1, 16 do
      local a, b, c, d = string.byte(text, at + i * 4 - 4, at + i * 4 - 1)
      W[i] = tobit(a * 16777216 + b * 65536 + c * 256 + d)
    end
    for i = 17, 64 do
      local x, y = W[i - 15], W[i - 2]
      local s0 = bxor(ror(x, 7), ror(x, 18), rshift(x, 3))
      local s1 = bxor(ror(y, 17), ror(y, 19), rshift(y, 10))
      W[i] = tobit(W[i - 16] + s0 + W[i - 7] + s1)
    end
    local a, b, c, d, e, f, g, h = h1, h2, h3, h4, h5, h6, h7, h8
    for i = 1, 64 do
      local s1 = bxor(ror(e, 6), ror(e, 11), ror(e, 25))
      local t1 = tobit(h + s1 + bxor(band(e, f), band(bnot(e), g)) + K[i] + W[i])
      local s0 = bxor(ror(a, 2), ror(a, 13), ror(a, 22))
      local t2 = s0 + bxor(band(a, b), band(a, c), band(b, c))
      h, g, f, e, d, c, b, a = g, f, e, tobit(d + t1), c, b, a, tobit(t1 + t2)
    end
    h1, h2, h3, h4 = tobit(h1 + a), tobit(h2 + b), tobit(h3 + c), tobit(h4 + d)
    h5, h6, h7, h8 = tobit(h5 + e), tobit(h6 + f), tobit(h7 + g), tobit(h8 + h)
  end
  return tohex(h1) .. tohex(h2) .. tohex(h3) .. tohex(h4) .. tohex(h5) .. tohex(h6) .. tohex(h7) .. tohex(h8)
end

function envoy_on_request(handle)
  local headers = handle:headers()
  local key = headers:get("%(metadata)s")
  if key == nil then return end
  local name = nil
  if #key <= %(max_key)d and headers:getNumValues("%(metadata)s") == 1 then name = names[sha256(key)] end
  if name == nil then
    handle:stats():counter("%(statistic)s"):inc()
    handle:streamInfo():dynamicMetadata():set("%(namespace)s", "%(details_key)s", "%(details)s")
    handle:respond({[":status"] = "401", ["www-authenticate"] = "ApiKey"}, "The API key is not valid.")
    return
  end
  headers:remove("%(metadata)s")
  headers:add("%(header)s", name)
end
"""


def api_key_script(header: str, names: Mapping[str, str]) -> str:
    """Return the script: it replaces ``x-api-key`` by a header with the name of the key, and refuses an unknown key.

    Args:
        header: The header for the name. Nothing that the client sent is in it.
        names: SHA-256 of a key in hexadecimal → its name, which contains no quotes.
    """
    table = ",".join(f'["{digest}"]="{name}"' for digest, name in sorted(names.items()))
    return _SCRIPT % {
        "names": table,
        "metadata": API_KEY_METADATA,
        "max_key": _MAX_KEY,
        "header": header,
        "statistic": DENIED_STATISTIC,
        "namespace": DETAILS_KEY[0],
        "details_key": DETAILS_KEY[1],
        "details": _DENIED_DETAILS,
    }
