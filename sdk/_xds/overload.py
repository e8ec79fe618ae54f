"""Envoy's overload manager: limits of a whole Envoy, so that a flood costs new calls and never the process.

https://www.envoyproxy.io/docs/envoy/latest/configuration/operations/overload_manager/overload_manager
"""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration

from sdk._gen import envoy_pb2 as pb
from sdk._xds.open_files import max_connections
from sdk._xds.packing import pack

_CONNECTIONS = "envoy.resource_monitors.global_downstream_max_connections"
_MEMORY = "envoy.resource_monitors.fixed_heap"
# Shares of the limit from which Envoy gives free memory back, refuses new calls, and refuses new connections.
_SHRINK, _NO_CALLS, _NO_CONNECTIONS = 0.9, 0.95, 0.98
# From this share on it resets the calls with the most buffered data, more of them the closer the limit is.
_RESET_FROM, _RESET_TO = 0.98, 1.0
# Calls with less than 2 ** 20 bytes of buffered data are not reset.
_RESET_POWER_OF_TWO = 20
# Time between two looks at the memory. By default a second, in which a flood can fill a gigabyte.
_REFRESH = Duration(nanos=100_000_000)


def overload_manager(max_memory_bytes: int | None) -> pb.OverloadManager:
    """Return the configuration: a limit of connections, and one of memory if it is set.

    Args:
        max_memory_bytes: Limit of the memory that Envoy allocates; None for no limit.
    """
    limit = pb.DownstreamConnectionsConfig(max_active_downstream_connections=max_connections())
    manager = pb.OverloadManager(resource_monitors=[pb.ResourceMonitor(name=_CONNECTIONS, typed_config=pack(limit))])
    if max_memory_bytes is None:
        return manager
    heap = pb.FixedHeapConfig(max_heap_size_bytes=max_memory_bytes)
    manager.resource_monitors.add(name=_MEMORY, typed_config=pack(heap))
    manager.refresh_interval.CopyFrom(_REFRESH)
    for name, value in (
        ("shrink_heap", _SHRINK),
        ("stop_accepting_requests", _NO_CALLS),
        ("reject_incoming_connections", _NO_CONNECTIONS),
    ):
        trigger = pb.OverloadTrigger(name=_MEMORY, threshold=pb.ThresholdTrigger(value=value))
        manager.actions.add(name=f"envoy.overload_actions.{name}", triggers=[trigger])
    scaled = pb.ScaledTrigger(scaling_threshold=_RESET_FROM, saturation_threshold=_RESET_TO)
    reset = [pb.OverloadTrigger(name=_MEMORY, scaled=scaled)]
    manager.actions.add(name="envoy.overload_actions.reset_high_memory_stream", triggers=reset)
    manager.buffer_factory_config.minimum_account_to_track_power_of_two = _RESET_POWER_OF_TWO
    return manager
