"""Kernel TLS: whether this kernel has it, and which connections use it."""

import functools
import platform
import re
import socket

import pytest

from support import wait_for

# The user-visible sign: a word in a connection's log line.
MOVED = " ktls "
TCP_ULP = 31
KERNEL = tuple(map(int, re.findall(r"\d+", platform.release())[:2]))
SUITES = {
    "TLS_AES_128_GCM_SHA256": None,
    "TLS_AES_256_GCM_SHA384": None,
    "TLS_CHACHA20_POLY1305_SHA256": None,
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256":
        "ECDHE-ECDSA-AES128-GCM-SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384":
        "ECDHE-ECDSA-AES256-GCM-SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256":
        "ECDHE-ECDSA-CHACHA20-POLY1305",
}


@functools.lru_cache
def available():
    with socket.create_server(("127.0.0.1", 0)) as listener, \
            socket.create_connection(listener.getsockname()) as sock:
        try:
            sock.setsockopt(socket.IPPROTO_TCP, TCP_ULP, b"tls")
        except OSError:
            return False
        return True


needs_ktls = pytest.mark.skipif(
    not available(), reason="no TLS in this kernel (make check-vm boots another)")


def moved():
    """How many sockets have kernel keys for sending, and for receiving."""
    with open("/proc/net/tls_stat") as f:
        counts = dict(map(str.split, f))
    return int(counts["TlsTxSw"]), int(counts["TlsRxSw"])


class Moved:
    """The kernel TLS connections of a tunnel, counted since it was ready."""

    def __init__(self, t):
        self.t, self.before = t, moved()

    def count(self):
        return tuple(now - then for now, then in zip(moved(), self.before))

    def expect(self, count):
        """Expect both directions.  Sending may be deferred until a ticket is
        sent, which waits for data.
        """
        self.expect_received(count)
        wait_for(lambda: self.count()[0] >= count, "sending to be moved")
        assert self.count() == (count, count)

    def expect_received(self, count):
        wait_for(lambda: self.count()[1] >= count, f"{count} to be moved")
        assert self.count()[1] == count

    def expect_none(self):
        """Expect no kernel TLS, after a connection has ended."""
        assert MOVED not in self.t.wait_log(r" TLSv1\.\d .*\d\.\d{3}s ")
        assert self.count() == (0, 0)


def version_of(suite):
    return "1.2" if SUITES[suite] else "1.3"


def end(t, client):
    """End a connection with close_notify; return the tunnel's line about it.
    """
    count = len(re.findall(r"\d\.\d{3}s ", t.log()))
    client.close_notify()
    assert client.read_all() == (b"", "close_notify")
    client.close()
    return t.wait_log(r"\d\.\d{3}s ", count + 1)
