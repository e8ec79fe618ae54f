"""The process that survives its replica, and sends the trailers of the streams that the replica left open.

Run by :mod:`sdk._wire.crash_trailers`, as a plain script and with the standard library only, so that it is small. It
holds copies of a replica's connections, and memory in which the replica keeps the trailers of the response on each. A
connection lives until its last copy is closed: Envoy does not notice the replica's death before this process has acted.
"""

import contextlib
import mmap
import os
import resource
import select
import signal
import socket
import struct
import sys
import time

#: Bytes of a connection's part of the memory: RECORD, followed by the trailers.
SLOT = 512
#: Number of connections that there is room for. Unused memory takes none.
SLOTS = 1 << 16
#: Whether the trailers may be sent now, and their length in bytes.
RECORD = struct.Struct("<?H")
#: Packet from the replica, the slot: with a connection, or without one when its response is over.
PACKET = struct.Struct("<I")
#: Sent in place of a slot: the replica has no more connections to pass, and will leave no open stream behind.
SHUTDOWN = 0xFFFFFFFF

# Seconds that Envoy gets to read the trailers, and to close.
_LINGER_S = 2.0


def end_streams(memory: mmap.mmap, connections: dict[int, socket.socket]) -> None:
    """Send the trailers of every response that may have them, and close all connections."""
    pending: dict[int, bytes] = {}
    open_connections: dict[int, socket.socket] = {}
    for slot, connection in connections.items():
        may_end, length = RECORD.unpack_from(memory, slot * SLOT)
        if may_end:
            begin = slot * SLOT + RECORD.size
            open_connections[connection.fileno()] = connection
            pending[connection.fileno()] = memory[begin : begin + length]
        else:
            # Not SHUT_WR: within a message no trailers can follow, and before the response Envoy sends its own, or
            # retries. Shut down because a child that the replica has forked may hold a copy too.
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
    _send_pending(pending, open_connections)


def _send_pending(pending: dict[int, bytes], connections: dict[int, socket.socket]) -> None:
    """Write the trailers as soon as there is room for them, and wait until Envoy closes.

    Closing a socket with unread bytes resets it, and Envoy would not read the trailers.
    """
    deadline = time.monotonic() + _LINGER_S
    poll = select.poll()
    for descriptor in connections:
        poll.register(descriptor, select.POLLIN | select.POLLOUT)
    while connections and (left_s := deadline - time.monotonic()) > 0:
        for descriptor, events in poll.poll(left_s * 1000):
            connection, is_open = connections[descriptor], True
            try:
                if events & ~select.POLLOUT:
                    is_open = bool(connection.recv(1 << 16, socket.MSG_DONTWAIT))
                if events & select.POLLOUT:
                    sent = connection.send(pending[descriptor], socket.MSG_DONTWAIT)
                    pending[descriptor] = pending[descriptor][sent:]
                    if not pending[descriptor]:
                        connection.shutdown(socket.SHUT_WR)
                        poll.modify(descriptor, select.POLLIN)
            except OSError as error:
                is_open = isinstance(error, BlockingIOError)
            if not is_open:
                poll.unregister(descriptor)
                connections.pop(descriptor).close()


def outlive(channel: socket.socket, memory: mmap.mmap, replica: int) -> None:
    """Hold the replica's connections until it is dead, and end their streams then; return at once at its shutdown.

    Args:
        channel: From the replica, a packet for each connection that it passes or takes back.
        memory: The trailers.
        replica: A file descriptor that becomes readable when the replica has died (pidfd_open(2)).
    """
    connections: dict[int, socket.socket] = {}
    poll = select.poll()
    poll.register(channel, select.POLLIN)
    poll.register(replica, select.POLLIN)
    while True:
        ready = [descriptor for descriptor, _ in poll.poll()]
        if channel.fileno() in ready:  # first: the replica's last packets are still to be read
            packet, descriptors, _, _ = socket.recv_fds(channel, PACKET.size, 1)
            if not packet:
                poll.unregister(channel)
                continue
            (slot,) = PACKET.unpack(packet)
            if slot == SHUTDOWN:
                return
            before = connections.pop(slot, None)
            if before is not None:
                before.close()
            for descriptor in descriptors:
                connections[slot] = socket.socket(fileno=descriptor)
        elif replica in ready:
            end_streams(memory, connections)
            return


def main() -> None:
    """Run with the descriptors of the channel, the memory and the replica as arguments."""
    if os.fork():
        os._exit(0)  # Ray kills a worker's children before it: this process must not be a child of the replica
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the replica acts on them
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    channel, memory, replica = map(int, sys.argv[1:])
    with socket.socket(fileno=channel) as given, mmap.mmap(memory, SLOTS * SLOT, prot=mmap.PROT_READ) as shared:
        os.close(memory)
        outlive(given, shared, replica)


if __name__ == "__main__":
    main()
