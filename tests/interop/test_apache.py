"""Apache behind the tunnel, seen through curl."""

import hashlib
import os
import random
import shutil

import pytest

import support
from support import run

SERVER = "/usr/sbin/apache2"
CONF = """
ServerRoot {dir}
ServerName localhost
DocumentRoot {dir}/htdocs
PidFile {dir}/apache.pid
ErrorLog {dir}/apache-error.log
LogLevel warn
Listen {address}
KeepAlive On
LoadModule mpm_event_module {modules}/mod_mpm_event.so
LoadModule authz_core_module {modules}/mod_authz_core.so
LoadModule reflector_module {modules}/mod_reflector.so
<Location /reflect>
    SetHandler reflector
</Location>
"""
BIG_FILE = random.Random(4).randbytes(30 * 1024 * 1024)


@pytest.fixture
def apache(room):
    """A tunnel in front of it."""
    if not os.path.exists(SERVER):
        pytest.skip("apache2-bin is not installed")
    os.chmod(room.dir, 0o755)
    os.mkdir(room.path("htdocs"))
    room.write("htdocs/small.txt", "a small file\n")
    room.write("htdocs/big.bin", BIG_FILE)
    # It can't be told to choose a port.
    address = support.free_port()
    conf = room.write("apache.conf", CONF.format(
        dir=room.dir, address=address, modules="/usr/lib/apache2/modules"))
    if os.getuid() == 0:
        with open(conf, "a") as f:
            f.write("User nobody\nGroup nogroup\n")
    server = room.start("apache", [SERVER, "-X", "-f", conf])

    def serves():
        assert server.alive(), "apache2 does not start"
        try:
            support.connect(address).close()
        except ConnectionRefusedError:
            return False
        return True

    support.wait_for(serves, "apache2 to listen")
    return room.tunnel(f"connect={address}")


@pytest.fixture
def curl(room, apache):
    if not shutil.which("curl"):
        pytest.skip("curl is not installed")
    port = apache.address.split(":")[1]

    def call(*arguments, **keywords):
        return run("curl", "-sS", "-4", "--cacert", room.certs.ca, *(
            a.replace("URL", f"https://localhost:{port}") for a in arguments),
            **keywords)

    return call


def test_keep_alive(apache, curl):
    assert curl(*["URL/small.txt"] * 5) == b"a small file\n" * 5
    apache.wait_log(" closed$")
    assert apache.log().count(" closed\n") == 1


def test_connection_close(apache, curl, version):
    """Apache closes first; nothing of its reply is lost."""
    for n in range(1, 4):
        out = curl("-H", "Connection: close", "--tlsv" + version,
                   "--tls-max", version, "URL/big.bin")
        assert hashlib.sha256(out).digest() == \
            hashlib.sha256(BIG_FILE).digest()
        apache.wait_log(f"TLSv{version} .* closed$", count=n)


def test_big_file(curl):
    out = curl("URL/big.bin")
    assert hashlib.sha256(out).digest() == hashlib.sha256(BIG_FILE).digest()


def test_post(curl):
    body = BIG_FILE[:5 * 1024 * 1024]
    assert curl("--data-binary", "@-", "URL/reflect", stdin=body) == body


def test_http_1_0(curl):
    assert curl("-0", "URL/small.txt") == b"a small file\n"
