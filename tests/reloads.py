"""A tunnel with a configuration file that changes."""

import hashlib
import os
import random
import re
import signal
import time

import pytest

import support
from support import Task, read_exactly, wait_for

ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


class Configured:
    """A tunnel with a configuration file that tests may change."""

    def __init__(self, room, *arguments, keywords=None, **values):
        self.room = room
        self.values = {"accept": "127.0.0.1:0", "cert": room.certs.server,
                       "log_level": "debug"}
        self.path = room.path("tunnel.conf")
        self.write(**values)
        self.t = room.tunnel("-c", self.path, *arguments, **(keywords or {}))

    def write(self, **values):
        """Rewrite the file. value: a text, a list of texts, or None to omit
        the key.
        """
        self.values.update(values)
        text = "".join(
            f"{key} = {value}\n" for key, of in self.values.items()
            for value in (of if isinstance(of, list) else [of])
            if value is not None)
        os.rename(self.room.write("new.conf", text), self.path)

    def hup(self, words):
        """Send SIGHUP; return the log lines up to the one with these words."""
        log = self.t.log()
        self.t.signal(signal.SIGHUP)
        self.t.wait_log(words, count=len(re.findall(words, log, re.M)) + 1)
        return self.t.log()[len(log):].splitlines()

    def reload(self, **values):
        self.write(**values)
        old, listeners = self.t.workers(), support.sockets(self.t.pid)
        lines = self.hup("tunnel: reloaded$")
        assert "tunnel: reloading" in lines
        # Until then, old workers may still accept.
        wait_for(lambda: not any(x in listeners for pid in old
                                 for x in support.sockets(pid)),
                 "the old workers to drain")
        return lines

    def refuse(self, **values):
        """Write bad values and reload; return the error message."""
        self.write(**values)
        return self.refused()

    def refused(self):
        lines = self.hup("reload failed, ")
        errors = [x for x in lines if x.startswith("tunnel: error: ")]
        assert len(errors) == 2, errors
        assert errors[1] == \
            "tunnel: error: reload failed, keeping the running configuration"
        return errors[0].removeprefix("tunnel: error: ").replace(
            self.room.dir + "/", "")

    def client(self, **keywords):
        return self.room.client(self.t.address, **keywords)


def uid(pid):
    try:
        with open(f"/proc/{pid}/status") as f:
            return int(re.search(r"^Uid:\s+(\d+)", f.read(), re.M)[1])
    except (FileNotFoundError, ProcessLookupError):
        return None


def pump(client, number, stop):
    """Send and receive until stopped; return digests of both directions."""
    rng = random.Random(number)
    sent, received = hashlib.sha256(), hashlib.sha256()
    rounds = 0
    while not stop() or rounds < 3:
        data = rng.randbytes(200000)
        sending = Task(client.send, data)
        sent.update(data)
        received.update(read_exactly(client, len(data)))
        sending.result()
        rounds += 1
        time.sleep(0.01)  # leaves CPU time for the rest of the test
    client.close_notify()
    assert client.read_all() == (b"", "close_notify")
    return rounds, sent.hexdigest(), received.hexdigest()
