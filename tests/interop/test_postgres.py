"""PostgreSQL with direct TLS, supported from version 17 on if ALPN names its
protocol; psql here has no TLS.
"""

import os
import pwd

import pytest

import programs
import support
from support import run

BIN = "usr/lib/postgresql/17/bin/"
CONF = """
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = ''
ssl = on
ssl_cert_file = 'server.pem'
ssl_key_file = 'server.pem'
fsync = off
"""


@pytest.fixture
def postgres(room):
    """The address of a server, which must not run as root."""
    program = programs.unpacked("postgres", BIN + "postgres")
    data, keywords = room.path("data"), {}
    os.mkdir(data, 0o700)
    os.chmod(room.dir, 0o755)
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        os.chown(data, nobody.pw_uid, nobody.pw_gid)
        keywords = {"user": nobody.pw_uid, "group": nobody.pw_gid,
                    "extra_groups": [], "cwd": "/"}
    run(os.path.join(os.path.dirname(program), "initdb"), "-D", data, "-A",
        "trust", "-U", "test", "--no-sync", "--locale=C",
        timeout=3 * support.DEADLINE, **keywords)
    address = support.free_port()
    with open(room.certs.server) as f:
        pem = room.write("data/server.pem", f.read())
    os.chmod(pem, 0o600)
    if keywords:
        os.chown(pem, nobody.pw_uid, nobody.pw_gid)
    with open(room.path("data/postgresql.conf"), "a") as f:
        f.write(CONF.format(port=address.split(":")[1]))
    programs.serves(room, "postgres", [program, "-D", data], address,
                    **keywords)
    room.processes[-1].wait_log("ready to accept connections")
    return address


@pytest.fixture
def start(room, postgres):
    return lambda *words: room.tunnel(
        "client=yes", f"connect={postgres}", f"ca={room.certs.ca}",
        "server_name=localhost", *words)


def psql(t, text, **keywords):
    host, port = t.address.split(":")
    return run(programs.unpacked("postgres", BIN + "psql"), "-XAtq", "-c",
               text, f"host={host} port={port} user=test dbname=postgres "
               "sslmode=disable gssencmode=disable", **keywords)


@pytest.mark.parametrize("mode", ["mode=poll", "mode=fork"])
def test_psql(start, version, mode):
    t = start("alpn=postgresql", f"tls_max={version}", mode)
    assert psql(t, "select version from pg_stat_ssl where ssl and "
                "pid = pg_backend_pid()") == f"TLSv{version}\n".encode()
    out = psql(t, "select repeat('x', 1000) from generate_series(1, 10000)")
    assert out == (b"x" * 1000 + b"\n") * 10000
    t.wait_log(rf"TLSv{version} .* alpn=postgresql server=\"O=tunnel, "
               "CN=server\" .* closed$")


def test_without_alpn(start):
    """PostgreSQL refuses the connection."""
    t = start()
    psql(t, "select 1", status=2)
    t.wait_log("-> .* in=")
