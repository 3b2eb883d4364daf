"""Other programs, in front of a tunnel and behind it."""

import os

import pytest

import proxy
import support
from support import need, run

# The server is the same binary, so packages that start a server are not
# needed.
REDIS = "/usr/bin/redis-check-rdb"
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
    """Start Apache, with additional configuration; return its address."""
    modules = "/usr/lib/apache2/modules"
    if not os.path.exists(f"{modules}/{module}.so"):
        pytest.skip("apache2-bin is not installed")
    os.chmod(room.dir, 0o755)
    os.mkdir(room.path("htdocs"))
    room.write("htdocs/small.txt", "a small file\n")
    # Apache cannot choose a port.
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
    """The client commands that use this version, as filters."""
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


def unpacked(name, program):
    """The program, unpacked by tests/deps or installed."""
    for place in (os.path.join(support.TOP, "build", name), "/"):
        if os.path.exists(os.path.join(place, program)):
            return os.path.join(place, program)
    pytest.skip(f"no {name}: make deps check unpacks it in build/{name}")


def serves(room, name, command, address, **keywords):
    """Start a program in the foreground, and wait until it listens there."""
    os.chmod(room.dir, 0o755)
    server = room.start(name, command, **keywords)

    def listens():
        assert server.alive(), f"{name} does not start"
        return not support.is_refused(address)

    support.wait_for(listens, f"{name} to listen")
    return address


# TLS servers in front of a plaintext service.  Each uses the test's server
# certificate, and returns its address.

def nginx_server(room, text):
    """text: the configuration outside events, with {address} and {cert}."""
    program = unpacked("nginx", "usr/sbin/nginx")
    module = program.replace("usr/sbin/nginx",
                             "usr/lib/nginx/modules/ngx_stream_module.so")
    if not os.path.exists(module):
        pytest.skip("no stream module for nginx")
    address = support.free_port()
    conf = room.write("nginx.conf", f"load_module {module};\n" + """
daemon off;
master_process off;
pid nginx.pid;
events { }
""" + text.replace("{address}", address).replace("{cert}", room.certs.server))
    return serves(room, "nginx", [program, "-e", room.path("nginx-error.log"),
                                  "-p", room.dir, "-c", conf], address)


def nginx_tls(room, service):
    return nginx_server(room, """
stream {
    server {
        listen {address} ssl;
        ssl_certificate {cert};
        ssl_certificate_key {cert};
        ssl_protocols TLSv1.2 TLSv1.3;
        proxy_pass %s;
    }
}
""" % service)


def stunnel_tls(room, service, more=""):
    address = support.free_port()
    conf = room.write("stunnel.conf", f"""
foreground = yes
pid =
syslog = no
[service]
accept = {address}
connect = {service}
cert = {room.certs.server}
{more}
""")
    return serves(room, "stunnel", [unpacked("stunnel", "usr/bin/stunnel"),
                                    conf], address)


def hitch_tls(room, service):
    address = support.free_port()
    host, port = address.split(":")
    conf = room.write("hitch.conf", f"""
frontend = "[{host}]:{port}"
backend = "[127.0.0.1]:{service.rsplit(":", 1)[1]}"
pem-file = "{room.certs.server}"
workers = 1
daemon = off
tls-protos = TLSv1.2 TLSv1.3
""")
    words = ["--user=nobody"] if os.getuid() == 0 else []
    serves(room, "hitch", [unpacked("hitch", "usr/sbin/hitch"),
                           f"--config={conf}", *words], address)
    # hitch first listens as a trial, then permanently.
    room.processes[-1].wait_log(r"Process \d+ online")
    return address


def haproxy_tls(room, service):
    return proxy.Haproxy(room, """
listen tls
    mode tcp
    bind {} ssl crt %s
    server s %s
""" % (room.certs.server, service)).address


def tunnel_tls(room, service):
    return room.tunnel(f"connect={service}").address
