"""Other programs in front of a tunnel, and behind it."""

import os

import pytest

import support
from support import need, run

APACHE = "/usr/sbin/apache2"
APACHE_CONF = """
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


def apache(room, more="", module="mod_reflector"):
    """Start one, with more in its configuration; its address."""
    modules = "/usr/lib/apache2/modules"
    if not os.path.exists(f"{modules}/{module}.so"):
        pytest.skip("apache2-bin is not installed")
    os.chmod(room.dir, 0o755)
    os.mkdir(room.path("htdocs"))
    room.write("htdocs/small.txt", "a small file\n")
    # It can't be told to choose a port.
    address = support.free_port()
    text = (APACHE_CONF + more).format(dir=room.dir, address=address,
                                       modules=modules)
    if os.getuid() == 0:
        text += "User nobody\nGroup nogroup\n"
    server = room.start("apache", [APACHE, "-X", "-f",
                                   room.write("apache.conf", text)])

    def listens():
        assert server.alive(), "apache2 does not start"
        return not support.is_refused(address)

    support.wait_for(listens, "apache2 to listen")
    return address


def commands(certs, port):
    """How each is told to talk over a version, as a filter."""
    return {
        "openssl": lambda v: [
            "openssl", "s_client", "-quiet", "-verify_return_error",
            "-CAfile", certs.ca, "-verify_hostname", "localhost",
            "-servername", "localhost", "-tls" + v.replace(".", "_"),
            "-connect", "127.0.0.1:" + port],
        "gnutls-cli": lambda v: [
            "gnutls-cli", "--logfile=/dev/null", "--x509cafile=" + certs.ca,
            "--priority=NORMAL:-VERS-ALL:+VERS-TLS" + v, "--port=" + port,
            "localhost"],
    }


def curl(room, t, *arguments, **keywords):
    need("curl")
    port = t.address.rsplit(":", 1)[1]
    return run("curl", "-sS", "-4", "--cacert", room.certs.ca, *(
        a.replace("URL", f"https://localhost:{port}") for a in arguments),
        **keywords)


def tls_flags(room, t):
    host, port = t.address.split(":")
    return ["-h", host, "-p", port, "--tls", "--cacert", room.certs.ca]
