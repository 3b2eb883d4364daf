"""Allocations that fail at any point, by a preloaded library."""

import contextlib
import mmap
import os
import socket
import struct

import pytest

import peers
import support
from crowds import greet
from launchers import dynamic
from support import MODE, need, run, statistics, wait_for

# The file has the number of allocations that succeed before all others
# fail; 0: no limit.
SCARCE = r"""
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>

void	*__libc_calloc(size_t, size_t);
void	*__libc_malloc(size_t);
void	*__libc_realloc(void *, size_t);

static volatile unsigned *left;

__attribute__((constructor)) static void
begin(void)
{
	int fd = open(getenv("SCARCE"), O_RDWR);
	void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (p == MAP_FAILED)
		abort();
	left = p;
}

static int
is_out(void)
{
	if (left == NULL || *left == 0)
		return 0;
	if (*left == 1)
		return 1;
	--*left;
	return 0;
}

void *
malloc(size_t size)
{
	return is_out() ? NULL : __libc_malloc(size);
}

void *
calloc(size_t n, size_t size)
{
	return is_out() ? NULL : __libc_calloc(n, size);
}

void *
realloc(void *p, size_t size)
{
	return is_out() ? NULL : __libc_realloc(p, size);
}
"""


PLENTY = 1 << 20


class Memory:
    """The limit of memory for a tunnel with self.env."""

    def __init__(self, room):
        source = room.write("scarce.c", SCARCE)
        run("cc", "-shared", "-fPIC", "-o", room.path("scarce.so"), source)
        with open(room.write("scarce", ""), "r+b") as f:
            f.truncate(4096)
            self.map = mmap.mmap(f.fileno(), 4096)
        self.env = {**os.environ, "LD_PRELOAD": room.path("scarce.so"),
                    "SCARCE": room.path("scarce")}

    def ends_after(self, allocations):
        self.map[:4] = struct.pack("=I", allocations + 1)

    def left(self):
        return struct.unpack("=I", self.map[:4])[0] - 1

    def is_back(self):
        self.map[:4] = bytes(4)


@pytest.fixture
def scarce(room, backend):
    need("cc")
    backend.serve(support.echo)
    return Memory(room)


def greets(client):
    """Return whether a client is served; it sends some data in parts."""
    try:
        client.handshake()
        data = client.encrypt(b"hello")
        client.sock.sendall(data[:7])
        client.sock.sendall(data[7:])
        return client.recv() == b"hello"
    except OSError:  # also of TLS
        return False


@dynamic
@support.not_plain_4
@pytest.mark.skipif(support.SANITIZED or bool(support.UNDER) or MODE == "fork",
                    reason="these have memory of their own")
@pytest.mark.seconds(120)
@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_memory_may_end_anywhere(room, backend, scarce, version):
    """New clients may fail, but connected ones are served."""
    t = room.tunnel(f"connect={backend.address}", "workers=1",
                    "log_level=notice", env=scarce.env)
    others = [greet(room.client(t, v)) for v in ("1.2", "1.3")]
    ctx = peers.context(room.certs, version)

    def visit(allocations):
        """Connect clients while there is memory."""
        client = peers.Client(t.address, ctx)
        scarce.ends_after(allocations)
        visitor = support.Task(greets, client)
        wait_for(lambda: scarce.left() == 0 or not visitor.running(),
                 "the end of memory")
        for other in others:
            greet(other)
        left = scarce.left()
        scarce.is_back()
        with contextlib.suppress(OSError):  # possibly reset
            client.sock.shutdown(socket.SHUT_RDWR)
        client.close()
        return visitor.result(), left

    assert visit(PLENTY)[0]
    workers = t.workers()
    served, left = visit(PLENTY)
    total = PLENTY - left
    print(total)
    assert served and total > 30
    results = [visit(n)[0] for n in range(total - 1)]
    assert t.workers() == workers
    assert results.count(True) < len(results) / 4, results
    wait_for(lambda: statistics(t)["live"] == len(others), "their end")
    assert visit(PLENTY)[0]
