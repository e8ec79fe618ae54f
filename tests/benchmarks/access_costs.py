"""Costs of each part of the option ``access``, in instructions of Envoy for a call.

Run ``python -m tests.benchmarks.access_costs``. They are counted as in ``envoy_instructions``, which says what it
needs; it takes four minutes. To turn instructions into time, calls of the first row run without valgrind too, 32 at a
time: the instructions of such a call are divided by the least CPU time of several runs, the kernel's included.
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sdk._xds.access_filters import KeyMaterial
from sdk._xds.resources import build_resources
from sdk.access import Access, ApiKey, JwtIssuer, Limit, Rule, Token
from tests.benchmarks.envoy_instructions import METHOD, SERVICE, counted_envoy, load
from tests.support.envoy_rig import rig
from tests.support.tokens import Issuer

if TYPE_CHECKING:
    from sdk._xds.resources import Resources
    from tests.support.envoy_rig import Rig

CALLS, ROUNDS, STREAMS = 20_000, 14, 32
ISSUER = Issuer("https://id.example.org")
KEY = "sdk_" + "k" * 43
KEYS = KeyMaterial({ISSUER.name: ISSUER.jwks}, {hashlib.sha256(KEY.encode()).hexdigest(): "batch"})
NOTHING, TOKEN = "nothing", "a token that was seen before"
_BEARER, _API_KEY = ("authorization", f"Bearer {ISSUER.token()}"), ("x-api-key", KEY)
_ISSUERS = (JwtIssuer(ISSUER.name, ISSUER.jwks),)
# The last one of ten allows the call.
_BY_METHOD = (*(Rule("anyone", methods=(f"{SERVICE}/M{i}",)) for i in range(9)), Rule("anyone", methods=(METHOD,)))
_BY_CLAIMS = tuple(Rule(Token(claims={"sub": sub}), methods=(SERVICE,)) for sub in (*map(str, range(9)), "ann"))
_A_SECOND = (Limit(1e6, methods=(METHOD,)), Limit(1e6, per_identity=True))
_AT_ONCE = Limit(calls_at_once=1000)


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        access: The option.
        metadata: Metadata of the calls.
        beyond: Name of the row with which it is compared.
    """

    access: Access | None
    metadata: tuple[tuple[str, str], ...] = ()
    beyond: str = NOTHING


ROWS = {
    NOTHING: Row(None),
    "a token that nobody checks": Row(None, (_BEARER,)),
    TOKEN: Row(Access(issuers=_ISSUERS), (_BEARER,)),
    "an API key": Row(Access(api_keys="/keys"), (_API_KEY,)),
    "ten rules by method": Row(Access(rules=_BY_METHOD)),
    "ten rules by the token's claims": Row(Access(issuers=_ISSUERS, rules=_BY_CLAIMS), (_BEARER,), TOKEN),
    "two limits of calls a second": Row(Access(limits=_A_SECOND)),
    "the same, one by the token": Row(Access(issuers=_ISSUERS, limits=_A_SECOND), (_BEARER,), TOKEN),
    "a limit of calls at once": Row(Access(limits=(_AT_ONCE,))),
    "ten rules by the token's claims, and all three limits": Row(
        Access(issuers=_ISSUERS, rules=_BY_CLAIMS, limits=(*_A_SECOND, _AT_ONCE)), (_BEARER,), TOKEN
    ),
    "an API key and ten rules": Row(
        Access(api_keys="/keys", rules=(*_BY_METHOD[:9], Rule(ApiKey("batch")))), (_API_KEY,)
    ),
}


def configuration(envoy: Rig, access: Access | None) -> Resources:
    """Return Envoy's configuration with such an option."""
    snapshot = envoy.snapshot({"one": {"Greeter": ([SERVICE], ["a"])}})
    return build_resources(replace(snapshot, access=access), envoy.config, KEYS)


async def cpu_us() -> float:
    """Return Envoy's CPU time for a call without ``access``, in µs: the least of several runs."""
    async with rig("a") as envoy:
        await envoy.upstreams["a"].only_on_a_unix_socket()
        await envoy.ads.publish(configuration(envoy, None))
        spent = []
        for _ in range(ROUNDS):
            before = _cpu_us(envoy.process.pid)
            await load(envoy, CALLS, streams=STREAMS)
            spent.append((_cpu_us(envoy.process.pid) - before) / CALLS)
        return min(spent)


def _cpu_us(pid: int) -> float:
    threads = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(thread.read_text().split()[0]) for thread in threads) / 1000


async def main() -> None:
    """Print the table."""
    found: dict[str, float] = {}
    async with counted_envoy() as counted:
        plain = await counted.per_call(configuration(counted.envoy, None), streams=STREAMS)
        spent = await cpu_us()
        print(f"{plain:,.0f} instructions and {spent:.1f} µs for a call, {plain / spent:,.0f} in a µs")
        for name, row in ROWS.items():
            found[name] = await counted.per_call(configuration(counted.envoy, row.access), row.metadata)
            more = found[name] - found[row.beyond]
            print(f"| {name} | {found[name]:,.0f} | {more:+,.0f} | {more * spent / plain:+.1f} |", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
