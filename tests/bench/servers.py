"""The measured servers.

Each has candidate paths of its program, and a function to configure it.  The
function gets the server, a directory, the port to listen on and the port of
the service; it writes the files and returns the command.  The server's fields
set the number of workers, or threads if that is an option, and of connections.
All servers use the same groups and log no connections (only some do so by
default); everything else has its default.  To add a server, add a function
here and a row at the end.

Servers that also work in the client role, with plain connections in and
verified TLS to a server out, have a function for that; its last argument is
that server's port.
"""

import os
import re
import shutil
import subprocess

TOP = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))))
PATIENCE = 300  # seconds, for any wait, on a busy machine
NAME = "localhost"  # in the server's certificate


def has_hybrid():
    """Whether this system's OpenSSL has X25519MLKEM768."""
    p = subprocess.run(["openssl", "list", "-kem-algorithms"],
                       capture_output=True, text=True)
    return "X25519MLKEM768" in p.stdout


# For servers that omit the hybrid by default.
GROUPS = ("X25519MLKEM768:" if has_hybrid() else "") + \
    "X25519:P-256:P-384"


class Missing(Exception):
    """A server or figure that is not available, with the reason."""


def write(directory, name, text):
    path = os.path.join(directory, name)
    with open(path, "w") as f:
        f.write(text)
    return path


def yes(flag):
    return "yes" if flag else "no"


def tunnel(s, d, port, service):
    kind = "psk" if s.certificate == "psk" else "cert"
    return [s.program, f"accept=127.0.0.1:{port}",
            f"connect=127.0.0.1:{service}", f"{kind}={d}/server.pem",
            f"workers={s.workers}", f"max_connections={s.connections}",
            "log_level=warning"]


def tunnel_client(s, d, port, server):
    return [s.program, "client=yes", f"accept=127.0.0.1:{port}",
            f"connect=127.0.0.1:{server}", f"server_name={NAME}",
            f"ca={d}/ca.pem", f"session_tickets={yes(s.resumes)}",
            f"max_connections={s.connections}", "log_level=warning"]


def tunnel_inetd(s, d, service):
    return [s.program, "-i", f"connect=127.0.0.1:{service}",
            f"cert={d}/server.pem", f"log={d}/inetd.log", "log_level=warning"]


def stunnel(s, d, port, service, role=None):
    if s.certificate == "psk":
        role = f"PSKsecrets = {d}/server.pem\nciphers = PSK"
    return [s.program, write(d, "stunnel.conf", f"""\
foreground = yes
pid =
syslog = no
output = {d}/stunnel.log
debug = warning
[bench]
accept = 127.0.0.1:{port}
connect = 127.0.0.1:{service}
curves = {GROUPS}
{role or f"cert = {d}/server.pem"}
""")]


def stunnel_client(s, d, port, server):
    return stunnel(s, d, port, server, f"""\
client = yes
verifyChain = yes
CAfile = {d}/ca.pem
checkHost = {NAME}
sni = {NAME}
sessionResume = {yes(s.resumes)}""")


def stunnel_inetd(s, d, service):
    return [s.program, write(d, "inetd.conf", f"""\
syslog = no
output = {d}/stunnel.log
debug = warning
connect = 127.0.0.1:{service}
cert = {d}/server.pem
""")]


def hitch(s, d, port, service):
    return [s.program, "--config=" + write(d, "hitch.conf", f"""\
frontend = "[127.0.0.1]:{port}"
backend = "[127.0.0.1]:{service}"
pem-file = "{d}/server.pem"
workers = {s.workers}
daemon = off
tls-protos = TLSv1.2 TLSv1.3
ecdh-curve = "{GROUPS}"
""")] + (["--user=nobody"] if os.getuid() == 0 else [])


def haproxy(s, d, port, service, role=""):
    tls = "" if s.is_plain else f" ssl crt {d}/server.pem"
    return [s.program, "-db", "-f", write(d, "haproxy.cfg", f"""\
global
    nbthread {s.workers}
    maxconn {s.connections}
defaults
    mode tcp
    timeout connect 10s
    timeout client 1h
    timeout server 1h
listen bench
    bind 127.0.0.1:{port}{tls}
    server service 127.0.0.1:{service}{role}
""")]


def haproxy_client(s, d, port, server):
    return haproxy(s, d, port, server, f" ssl verify required ca-file {d}/"
                   f"ca.pem sni str({NAME}) verifyhost {NAME}" +
                   ("" if s.resumes else " no-ssl-reuse"))


def haproxy_far(s, d, port, service):
    """It logs for each connection whether it was resumed: 1 or 0."""
    words = haproxy(s, d, port, service)
    with open(words[-1], "a") as f:
        f.write("    log stdout format raw local0\n"
                '    log-format "%[ssl_fc_is_resumed]"\n')
    return words


def nginx(s, d, port, service, role=""):
    module = s.program.replace("sbin/nginx",
                               "lib/nginx/modules/ngx_stream_module.so")
    tls = """ ssl;
        ssl_certificate server.pem;
        ssl_certificate_key server.pem;
        ssl_protocols TLSv1.2 TLSv1.3""" if not s.is_plain else ""
    return [s.program, "-e", f"{d}/nginx.log", "-p", d, "-c",
            write(d, "nginx.conf", f"""\
load_module {module};
daemon off;
worker_processes {s.workers};
pid nginx.pid;
events {{ worker_connections {2 * s.connections + 20}; }}
stream {{
    server {{
        listen 127.0.0.1:{port}{tls};
        proxy_pass 127.0.0.1:{service};
        {role}
    }}
}}
""")]


def nginx_client(s, d, port, server):
    return nginx(s, d, port, server, f"""\
proxy_ssl on;
        proxy_ssl_verify on;
        proxy_ssl_trusted_certificate ca.pem;
        proxy_ssl_name {NAME};
        proxy_ssl_server_name on;
        proxy_ssl_protocols TLSv1.2 TLSv1.3;
        proxy_ssl_session_reuse {"on" if s.resumes else "off"};""")


def apache(s, d, port, service):
    modules = ["mpm_event", "ssl", "proxy", "proxy_http", "authz_core"]
    load = "".join(f"LoadModule {m}_module {path}\n" for m in modules
                   for path in [f"/usr/lib/apache2/modules/mod_{m}.so"]
                   if os.path.exists(path))
    return [s.program, "-DFOREGROUND", "-d", d, "-f",
            write(d, "apache.conf", f"""\
{load}
ServerName localhost
Listen 127.0.0.1:{port}
PidFile apache.pid
ErrorLog apache.log
ServerLimit 1
StartServers 1
ThreadsPerChild 64
MaxRequestWorkers 64
MaxKeepAliveRequests 0
User nobody
Group nogroup
SSLEngine on
SSLCertificateFile server.pem
SSLSessionCache none
ProxyPass / http://127.0.0.1:{service}/
""")]


def traffic_server(s, d, port, service):
    """It does not run as root, and requires the names of all its directories.
    """
    is_root = os.getuid() == 0
    if is_root:
        shutil.chown(d, "nobody")
    top = os.path.dirname(os.path.dirname(os.path.dirname(s.program)))
    write(d, "ssl_multicert.config", "dest_ip=* ssl_cert_name=server.pem\n")
    write(d, "remap.config", f"map / http://127.0.0.1:{service}/\n")
    write(d, "storage.config", "")
    shutil.copy(f"{top}/etc/trafficserver/ip_allow.yaml", d)
    write(d, "records.config", "".join(f"CONFIG proxy.config.{x}\n" for x in (
        f"http.server_ports STRING {port}:ssl:ip-in=127.0.0.1",
        "exec_thread.autoconfig INT 0", "exec_thread.limit INT 1",
        "http.cache.http INT 0", f"ssl.server.cert.path STRING {d}",
        f"ssl.server.private_key.path STRING {d}",
        f"admin.user_id STRING {'nobody' if is_root else '#-1'}",
        "body_factory.template_sets_dir STRING "
        f"{top}/etc/trafficserver/body_factory")))
    root = write(d, "runroot.yaml", "".join(f"{x}: {d}\n" for x in (
        "prefix", "exec_prefix", "sysconfdir", "datadir", "includedir",
        "localstatedir", "runtimedir", "logdir", "mandir", "infodir",
        "cachedir")) + f"""\
bindir: {top}/usr/bin
sbindir: {top}/usr/bin
libdir: {top}/usr/lib/trafficserver
libexecdir: {top}/usr/lib/trafficserver/modules
""")
    return ["env", f"TS_RUNROOT={root}", *s.before, s.program]


def copy(s, d, port, service):
    return [s.program, str(port), str(service)]


def spiped(s, d, port, service, way="-d"):
    return [s.program, way, "-F", "-s", f"[127.0.0.1]:{port}",
            "-t", f"[127.0.0.1]:{service}", "-k", f"{d}/server.pem",
            "-p", f"{d}/spiped{way}.pid"]


def spiped_front(s, d, port, server):
    return spiped(s, d, port, server, "-e")


class Server:
    def __init__(self, name, program, configure, version, **more):
        self.name, self.configure = name, configure
        self.programs = [program] if isinstance(program, str) else program
        self.version_words = version
        self.kind = more.get("kind", "peer")
        self.inetd = more.get("inetd")
        self.is_http = more.get("is_http", False)
        self.crypto = more.get("crypto")
        self.libraries = more.get("libraries")
        self.has_workers = more.get("has_workers", True)
        self.has_psk = more.get("has_psk", False)
        self.client = more.get("client")  # configures it in the client role
        self.front = more.get("front")  # what runs in front of it, on its port
        self.is_plain = self.kind == "floor"  # it accepts plain TCP
        self.is_far = False  # it runs on the CPU of client and service
        self.backend = None  # the port of its backend, if not the service's
        self.resumes = True
        self.workers, self.connections = 1, 1000
        self.certificate = more.get("certificate", "ec")
        self.process = None
        self.missing = None  # the reason, if it is missing

    def find(self):
        for program in self.programs:
            path = shutil.which(os.path.join(TOP, program))
            if path:
                self.program = os.path.abspath(path)
                where = os.path.join(os.path.dirname(self.program),
                                     self.libraries or "")
                self.before = ["env", f"LD_LIBRARY_PATH={where}"]
                return
        raise Missing(f"no {os.path.basename(self.programs[0])} is there")

    def version(self):
        before = self.before if self.libraries else []
        p = subprocess.run([*before, self.program, *self.version_words],
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                           text=True, timeout=PATIENCE)
        found = re.search(r"\d+\.\d+[\w.]*", p.stdout)
        return found.group(0) if found else ""


def variant(word):
    """A build of tunnel, given as NAME=DIRECTORY."""
    name, d = word.split("=")
    d = os.path.abspath(d)
    return Server(name, d + "/tunnel", tunnel, ["-V"], kind="tunnel",
                  inetd=tunnel_inetd, crypto=d + "/crypto", has_psk=True,
                  client=tunnel_client)


def floor(program):
    """The engine without TLS."""
    return Server("copy", program, copy, [], kind="floor")


HAPROXY = ["build/haproxy/usr/sbin/haproxy", "/usr/sbin/haproxy"]
NGINX = ["build/nginx/usr/sbin/nginx", "/usr/sbin/nginx"]

PEERS = [
    Server("stunnel", ["build/stunnel/usr/bin/stunnel", "/usr/bin/stunnel"],
           stunnel, ["-version"], inetd=stunnel_inetd, has_workers=False,
           has_psk=True, client=stunnel_client),
    Server("hitch", ["build/hitch/usr/sbin/hitch", "/usr/sbin/hitch"], hitch,
           ["--version"]),
    Server("haproxy", HAPROXY, haproxy, ["-v"], client=haproxy_client),
    Server("nginx", NGINX, nginx, ["-v"], client=nginx_client),
    Server("apache", "/usr/sbin/apache2", apache, ["-v"], is_http=True),
    Server("ats", ["build/traffic_server/usr/bin/traffic_server",
                   "/usr/bin/traffic_server"], traffic_server, ["-V"],
           is_http=True, libraries="../lib/trafficserver"),
]

# It has its own protocol, which needs spiped at both ends.
SPIPED = Server("spiped", ["build/spiped/usr/bin/spiped", "/usr/bin/spiped"],
                spiped, ["-v"], kind="pair", front=spiped_front,
                certificate="psk")

# Servers that can also run without TLS.
PLAINS = [Server("haproxy plain", HAPROXY, haproxy, [], kind="floor"),
          Server("nginx plain", NGINX, nginx, [], kind="floor")]
