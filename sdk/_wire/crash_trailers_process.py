"""The process that survives its replica, and ends the streams that the replica can't end any more.

Run by :mod:`sdk._wire.crash_trailers`, as a plain script and with the standard library only, so that it is small. It
holds copies of a replica's connections, and memory in which the replica keeps how the answer on each would end. A
connection lives until its last copy is closed: Envoy sees nothing of the replica's death before this process has acted.
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

#: Bytes of a connection's part of the memory: RECORD, and then the ending.
SLOT = 512
#: How many connections there is room for. What is not used of the memory takes none.
SLOTS = 1 << 16
#: Whether the answer may be ended now, and the length of its ending in bytes.
RECORD = struct.Struct("<?H")
#: What the replica sends with a connection, and without one when its answer is over: the slot.
PACKET = struct.Struct("<I")
#: Sent in place of a slot: the replica has no more to give, and will end without leaving anything behind.
GOODBYE = 0xFFFFFFFF

# Seconds that Envoy gets to read the endings, and to close.
_HEARD_S = 2.0


def end_answers(memory: mmap.mmap, connections: dict[int, socket.socket]) -> None:
    """End every answer that may be ended, and close all connections."""
    unsaid: dict[int, bytes] = {}
    left: dict[int, socket.socket] = {}
    for slot, connection in connections.items():
        may_end, length = RECORD.unpack_from(memory, slot * SLOT)
        if may_end:
            begin = slot * SLOT + RECORD.size
            left[connection.fileno()] = connection
            unsaid[connection.fileno()] = memory[begin : begin + length]
        else:
            # Not SHUT_WR: amid a message nothing can be said, and before the answer Envoy answers by itself, or
            # retries. Shut down because a child that the replica has forked may hold a copy too.
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
    _say(unsaid, left)


def _say(unsaid: dict[int, bytes], left: dict[int, socket.socket]) -> None:
    """Write what there is to say as soon as there is room for it, and wait until Envoy closes.

    Closing a socket with bytes that were not read resets it, and Envoy would not read the ending.
    """
    deadline = time.monotonic() + _HEARD_S
    open_ones = select.poll()
    for descriptor in left:
        open_ones.register(descriptor, select.POLLIN | select.POLLOUT)
    while left and (patience_s := deadline - time.monotonic()) > 0:
        for descriptor, events in open_ones.poll(patience_s * 1000):
            connection, is_open = left[descriptor], True
            try:
                if events & ~select.POLLOUT:
                    is_open = bool(connection.recv(1 << 16, socket.MSG_DONTWAIT))
                if events & select.POLLOUT:
                    said = connection.send(unsaid[descriptor], socket.MSG_DONTWAIT)
                    unsaid[descriptor] = unsaid[descriptor][said:]
                    if not unsaid[descriptor]:
                        connection.shutdown(socket.SHUT_WR)
                        open_ones.modify(descriptor, select.POLLIN)
            except OSError as error:
                is_open = isinstance(error, BlockingIOError)
            if not is_open:
                open_ones.unregister(descriptor)
                left.pop(descriptor).close()


def survive(channel: socket.socket, memory: mmap.mmap, replica: int) -> None:
    """Hold what the replica gives until it is dead, and act then; return at once when it says goodbye.

    Args:
        channel: From the replica, a packet for each connection that it gives or takes back.
        memory: How the answers end.
        replica: A file descriptor that becomes readable when the replica has died (pidfd_open(2)).
    """
    connections: dict[int, socket.socket] = {}
    waiting = select.poll()
    waiting.register(channel, select.POLLIN)
    waiting.register(replica, select.POLLIN)
    while True:
        ready = [descriptor for descriptor, _ in waiting.poll()]
        if channel.fileno() in ready:  # first: what it gave before it died is still to be taken
            packet, descriptors, _, _ = socket.recv_fds(channel, PACKET.size, 1)
            if not packet:
                waiting.unregister(channel)
                continue
            (slot,) = PACKET.unpack(packet)
            if slot == GOODBYE:
                return
            before = connections.pop(slot, None)
            if before is not None:
                before.close()
            for descriptor in descriptors:
                connections[slot] = socket.socket(fileno=descriptor)
        elif replica in ready:
            end_answers(memory, connections)
            return


def main() -> None:
    """Run with the descriptors of the channel, the memory and the replica as arguments."""
    if os.fork():
        os._exit(0)  # Ray kills the children of a worker before it: this one is no child of the replica
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # what they tell the replica is for the replica to act on
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    channel, memory, replica = map(int, sys.argv[1:])
    with socket.socket(fileno=channel) as given, mmap.mmap(memory, SLOTS * SLOT, prot=mmap.PROT_READ) as endings:
        os.close(memory)
        survive(given, endings, replica)


if __name__ == "__main__":
    main()
