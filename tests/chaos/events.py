"""Events that change or break the ingress under load, each with its promise."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.chaos.constant_load import Load
from tests.chaos.verdict import Promise, Row, Window, judge
from tests.chaos.world import World

# Seconds that calls continue after the ingress has converged: calls that were cut must have failed by then.
_AFTER_S = 1.0
_STOPPED_S = 5.0


@dataclass(frozen=True, slots=True)
class Event:
    """A change or a fault.

    Attributes:
        name: Name in the table.
        promise: The promise for calls during the event.
        act: Function that causes the event.
        lasts_s: Least number of seconds to watch it.
    """

    name: str
    promise: Promise
    act: Callable[[World, Load], object]
    lasts_s: float = 3.0


def happen(event: Event, world: World, load: Load) -> Row:
    """Cause an event, wait until the ingress has converged, and judge it."""
    hit = time.monotonic()
    event.act(world, load)
    converged = world.wait_converged()
    # A stream that began before the event ends within this time, too.
    time.sleep(max(_AFTER_S, hit + event.lasts_s - time.monotonic()))
    end = time.monotonic()
    window = Window(hit, max(hit, world.dead_at), converged, end, load.slowness.between(hit, end))
    row = judge(event.name, event.promise, window, list(load.calls))
    leftovers = world.leftovers()
    if leftovers:
        row = row.with_problem(f"replicas are left over: {leftovers}")
    return row


def _both(first: Callable[[World, Load], object], second: Callable[[World, Load], object]) -> Callable[..., None]:
    def act(world: World, load: Load) -> None:
        first(world, load)
        second(world, load)

    return act


def _freeze_replica(world: World, load: Load) -> None:
    with world.paused(load):
        time.sleep(_STOPPED_S)


def _scale(to: int) -> Callable[[World, Load], None]:
    return lambda world, load: world.scale(to)


def change_timeout(world: World, load: Load) -> None:
    # No call lasts as long; it is set, and then reset.
    for seconds in 60.0, None:
        world.change_ingress(request_timeout_s=seconds)


def kill_replica(world: World, load: Load) -> None:
    world.kill_replica(load)


def redeploy(world: World, load: Load) -> None:
    world.redeploy()


def redeploy_under_long_streams(world: World, load: Load) -> None:
    with load.long_streams(4):
        world.redeploy()


def kill_envoy(world: World, load: Load) -> None:
    world.kill_envoy()


def kill_supervisor(world: World, load: Load) -> None:
    world.kill_supervisor()


def kill_proxy(world: World, load: Load) -> None:
    world.kill_proxy()


def restart_proxy(world: World, load: Load) -> None:
    world.restart_proxy()


def kill_controller(world: World, load: Load) -> None:
    world.kill_controller()


def restart_controller(world: World, load: Load) -> None:
    world.restart_controller()


REDEPLOY = Event("redeploy", Promise.NOTHING_FAILS, redeploy)
SCALE_UP = Event("scale up", Promise.NOTHING_FAILS, _scale(6))
SCALE_DOWN = Event("scale down", Promise.NOTHING_FAILS, _scale(2))
PAST_THE_GRACE = Event("redeploy under streams past the grace", Promise.NOTHING_FAILS, redeploy_under_long_streams)
RESTARTS = (
    Event("controller restarted (ray.kill)", Promise.NOTHING_FAILS, restart_controller),
    Event("proxy actor restarted (ray.kill)", Promise.NOTHING_FAILS, restart_proxy),
)
OPTIONS = (
    Event("user_config changed", Promise.NOTHING_FAILS, lambda w, _: w.change(user_config={"version": "configured"})),
    Event("max_ongoing_requests changed", Promise.NOTHING_FAILS, lambda w, _: w.change(max_ongoing_requests=500)),
    Event("request_timeout_s of the ingress changed", Promise.NOTHING_FAILS, change_timeout),
)
FAULTS = (
    Event("kill -9 of a replica", Promise.ONLY_IN_FLIGHT, kill_replica),
    Event("kill -9 of Envoy", Promise.SOON_BACK, kill_envoy),
    Event("kill -9 of Envoy's supervisor", Promise.SOON_BACK, kill_supervisor),
    Event("kill -9 of the proxy actor", Promise.NOTHING_FAILS, kill_proxy),
    Event("kill -9 of the controller", Promise.NOTHING_FAILS, kill_controller),
)
FROZEN = Event("SIGSTOP of a replica for 5 s", Promise.SOON_BACK, _freeze_replica, lasts_s=_STOPPED_S + 2)
TWO_AT_ONCE = (
    Event("kill -9 of controller and proxy actor", Promise.NOTHING_FAILS, _both(kill_controller, kill_proxy)),
    Event("kill -9 of a replica and the controller", Promise.ONLY_IN_FLIGHT, _both(kill_controller, kill_replica)),
    Event("kill -9 of a replica and the proxy actor", Promise.ONLY_IN_FLIGHT, _both(kill_proxy, kill_replica)),
    Event("kill -9 of Envoy and the controller", Promise.SOON_BACK, _both(kill_controller, kill_envoy)),
    Event("kill -9 of Envoy and the proxy actor", Promise.SOON_BACK, _both(kill_proxy, kill_envoy)),
    Event("redeploy while the controller restarts", Promise.NOTHING_FAILS, _both(restart_controller, redeploy)),
    Event("redeploy while the proxy actor restarts", Promise.NOTHING_FAILS, _both(restart_proxy, redeploy)),
)


def long_form(replacements: int) -> Iterator[Event]:
    """Yield every event, with redeploys and scalings in between until the given number of replicas was replaced."""
    others = iter((PAST_THE_GRACE, *RESTARTS, *OPTIONS, *FAULTS, FROZEN, *TWO_AT_ONCE))
    replaced, replicas = 0, 2
    while replaced < replacements:
        for event, to in ((SCALE_UP, 6), (REDEPLOY, 6), (SCALE_DOWN, 2)):
            yield event
            replaced += 6 if event is REDEPLOY else max(0, replicas - to)
            replicas = to
            yield from [other for other in (next(others, None),) if other is not None]
    yield from others


def short_form() -> Iterator[Event]:
    """Yield a few of each kind."""
    yield SCALE_UP_BY_ONE
    yield FAULTS[0]
    yield TWO_AT_ONCE[0]
    yield FROZEN
    yield FAULTS[1]
    yield SCALE_DOWN  # before the redeploys, which start as many replicas as there are
    yield PAST_THE_GRACE
    yield TWO_AT_ONCE[-1]


SCALE_UP_BY_ONE = Event("scale up by one", Promise.NOTHING_FAILS, _scale(3))
