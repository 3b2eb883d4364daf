"""The files and processes of a test, all removed at its end."""

import os
import re
import shutil
import tempfile

import peers
import support


class Room:
    """A private directory, and everything started or opened in it."""

    def __init__(self, certs):
        self.dir = tempfile.mkdtemp(prefix="tunnel-test.")
        self.certs = certs
        self.processes = []
        self.opened = []
        self.logs = []  # kept after the directory is removed

    def path(self, name):
        return os.path.join(self.dir, name)

    def write(self, name, text):
        mode = "wb" if isinstance(text, bytes) else "w"
        with open(self.path(name), mode) as f:
            f.write(text)
        return self.path(name)

    def keep(self, opened):
        """Close this when the test ends."""
        self.opened.append(opened)
        return opened

    def start(self, name, command, **keywords):
        p = support.Process(self.dir, name, command, **keywords)
        self.processes.append(p)
        return p

    def tunnel(self, *arguments, ready=True, **keywords):
        """Start a tunnel; address, certificate and log level default to values
        for tests.
        """
        words = list(arguments)
        ours = words[:words.index("--")] if "--" in words else words
        given = {word.split("=")[0] for word in ours}
        if support.PAIR and "client=yes" not in ours:
            arguments = self.behind_a_pair(arguments)
        before = []
        if not given & {"accept", "-i", "-c"}:
            before.append("accept=127.0.0.1:0")
        if not given & {"cert", "-c"} and "client=yes" not in ours:
            before.append(f"cert={self.certs.server}")
        if not given & {"log_level", "-q", "-v", "-c"}:
            before.append("log_level=debug")
        name = f"tunnel{len(self.processes)}"
        t = support.Tunnel(self.dir, name, [*before, *arguments], **keywords)
        self.processes.append(t)
        return t.wait_ready() if ready else t

    def behind_a_pair(self, arguments):
        """Insert tunnels of both roles before the connect= target; they pass
        on every end of stream in both directions.
        """
        to = [word for word in arguments if word.startswith("connect=")]
        if not to:
            return arguments
        pair = []
        for words in (
                [*to, f"cert={self.certs.server}"],
                ["client=yes", "server_name=localhost", f"ca={self.certs.ca}"]):
            name = f"between{len(self.processes)}"
            t = support.Tunnel(self.dir, name, [
                "accept=127.0.0.1:0", "log_level=debug", *words,
                *(f"connect={other.address}" for other in pair)])
            self.processes.append(t)
            pair = [t.wait_ready()]
        return [*(word for word in arguments if word not in to),
                f"connect={pair[0].address}"]

    def backend(self, **keywords):
        return self.keep(support.Backend(**keywords))

    def connect(self, address, **keywords):
        return self.keep(support.connect(address, **keywords))

    def client(self, to, version=None, name="localhost", rcvbuf=None,
               session=None, **keywords):
        """A TLS client after its handshake, to a tunnel, an address or a
        connected socket. session: an earlier client's .session; it brings that
        client's version and certificate.
        """
        ctx = session.ctx if session else peers.context(
            self.certs, version, **keywords)
        to = to.address if isinstance(to, support.Tunnel) else to
        client = self.keep(peers.Client(to, ctx, name, rcvbuf, session))
        return client.handshake()

    def server(self, sock, version=None, pem=None, **keywords):
        """A TLS server on an accepted socket, before its handshake."""
        return self.keep(peers.Server(sock, peers.server_context(
            pem or self.certs.server, version, **keywords)))

    def read_logs(self):
        return [(p.name, p.log()) for p in self.processes]

    def close(self):
        """Stop everything.  Every tunnel has to exit cleanly, which also
        reveals leaks and races.
        """
        for x in reversed(self.opened):
            x.close()
        bad = []
        for p in reversed(self.processes):
            ended_before = not p.alive()
            workers = p.workers()
            status = p.stop()
            left = [pid for pid in workers if support.is_alive(pid)]
            if isinstance(p, support.Tunnel) and left:
                bad.append(f"{p.name}: {left} are left behind")
                support.kill(left)
            if not ended_before and isinstance(p, support.Tunnel) and status:
                bad.append(f"{p.name}: exit status {status} after SIGTERM")
            # Tests send SIGKILL (9); valgrind reports errors by status 99.
            if re.search(r"worker \d+ (was killed by signal (?!9\b)|"
                         "exited with status 99)", p.log()):
                bad.append(f"{p.name}: a worker crashed")
            if "Sanitizer" in p.log() or "runtime error:" in p.log():
                bad.append(f"{p.name}: a sanitizer complains")
        return bad


def open_room(certs):
    """The body of a fixture, mostly one room per test."""
    room = Room(certs)
    yield room
    bad = room.close()
    room.logs = room.read_logs()
    shutil.rmtree(room.dir)
    assert not bad, "; ".join(bad)
