"""Costs of each part of the option ``access``, in CPU time of Envoy a call.

Run ``python -m tests.benchmarks.access_costs``. It starts a server for each row, loads all of them in turn several
times, and prints the least CPU time of Envoy a call, and the difference to no option.
"""

from __future__ import annotations

import contextlib
import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path

import sdk.testing
from sdk import GrpcOptions
from sdk.access import Access, ApiKey, JwtIssuer, Limit, Rule, Token
from tests.support.tokens import Issuer

sys.path.insert(0, str(Path(__file__).parents[2] / "examples" / "greeter"))

CALLS, ROUNDS = 20_000, 8
METHOD = "greeter.Greeter/SayHello"
ISSUER = Issuer("https://id.example.org")
KEY = "sdk_" + "k" * 43
TOKEN = ("authorization", f"Bearer {ISSUER.token()}")
_TICKS_PER_S = 100


def rows(folder: Path) -> dict[str, tuple[Access | None, tuple[tuple[str, str], ...]]]:
    """Return the options of each row, and the metadata of its calls."""
    keys = folder / "keys"
    keys.touch(mode=0o600)
    keys.write_text(f"batch sha256:{hashlib.sha256(KEY.encode()).hexdigest()}\n")
    issuers = (JwtIssuer(ISSUER.name, ISSUER.jwks),)
    # The last one of ten allows the call.
    others = tuple(Rule("anyone", applications=("other",), methods=(f"a.A/M{number}",)) for number in range(9))
    limits = (Limit(1e6, methods=(METHOD,)), Limit(1e6, per_identity=True))
    by_token = (*others, Rule(Token(claims={"sub": "ann"}), methods=("greeter.Greeter",)))
    return {
        "nothing": (None, ()),
        "nothing, with the token": (None, (TOKEN,)),
        "a token that was seen before": (Access(issuers=issuers), (TOKEN,)),
        "an API key": (Access(api_keys=str(keys)), (("x-api-key", KEY),)),
        "ten rules": (Access(rules=(*others, Rule("anyone", methods=(METHOD,)))), ()),
        "two limits of calls a second": (Access(limits=limits), ()),
        "a limit of calls at once": (Access(limits=(Limit(calls_at_once=1000),)), ()),
        "a token, ten rules by its claims, and two limits": (
            Access(issuers=issuers, rules=by_token, limits=limits),
            (TOKEN,),
        ),
        "an API key and ten rules": (
            Access(api_keys=str(keys), rules=(*others, Rule(ApiKey("batch")))),
            (("x-api-key", KEY),),
        ),
    }


def load(server: sdk.testing.Server, folder: Path, metadata: tuple[tuple[str, str], ...]) -> float:
    """Make calls, and return Envoy's CPU time in microseconds a call."""
    body = folder / "body"
    body.write_bytes(bytes(5))
    fields = (("content-type", "application/grpc"), ("te", "trailers"), *metadata)
    headers = [f"-H{name}: {value}" for name, value in fields]
    before = _cpu_s(server.envoy_pid)
    command = ["h2load", f"-n{CALLS}", "-c4", "-m8", "-t1", f"-d{body}", *headers, f"http://{server.target}/{METHOD}"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert f"{CALLS} succeeded, 0 failed" in done.stdout, done.stdout
    return (_cpu_s(server.envoy_pid) - before) / CALLS * 1e6


def _cpu_s(pid: int) -> float:
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / _TICKS_PER_S


def main() -> None:
    """Print the table."""
    from tests.security.greeting import SAY_HELLO, Plain

    assert f"/{METHOD}" == SAY_HELLO
    with tempfile.TemporaryDirectory(prefix="sdk-t-") as path, contextlib.ExitStack() as stack:
        folder = Path(path)
        servers = {
            name: (stack.enter_context(sdk.testing.serve(Plain.bind(), options=GrpcOptions(access=access))), metadata)
            for name, (access, metadata) in rows(folder).items()
        }
        costs: dict[str, list[float]] = {name: [] for name in servers}
        for _ in range(ROUNDS):
            for name, (server, metadata) in servers.items():
                costs[name].append(load(server, folder, metadata))
        least = min(costs["nothing"])
        for name, found in costs.items():
            print(f"| {name} | {min(found):.1f} | {min(found) - least:+.1f} |", flush=True)


if __name__ == "__main__":
    main()
