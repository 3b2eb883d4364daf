"""The servers that are measured.

Each has a way to find its program, and one to be configured: a function of the
server, a directory, a port to listen on and the service's port, that writes the
files it needs and returns the command.  They have as many workers, or threads
where that is a choice, and room for as many connections as the server's fields
say, the same groups, and no line in a log for a connection, which only some of
them write by default; everything else is as it comes.  Another one is a
function here and a row at the end.
"""

import os
import re
import shutil
import subprocess

TOP = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))))
PATIENCE = 300  # seconds, for anything, on a busy machine


def has_hybrid():
    """Has the OpenSSL of this system X25519MLKEM768?"""
    p = subprocess.run(["openssl", "list", "-kem-algorithms"],
                       capture_output=True, text=True)
    return "X25519MLKEM768" in p.stdout


# For those that would leave the hybrid out.
GROUPS = ("X25519MLKEM768:" if has_hybrid() else "") + \
    "X25519:P-256:P-384"


class Missing(Exception):
    """A server or a figure that can't be had, and why."""


def write(directory, name, text):
    path = os.path.join(directory, name)
    with open(path, "w") as f:
        f.write(text)
    return path


def tunnel(s, d, port, service):
    return [s.program, f"accept=127.0.0.1:{port}",
            f"connect=127.0.0.1:{service}", f"cert={d}/server.pem",
            f"workers={s.workers}", f"max_connections={s.connections}",
            "log_level=warning"]


def tunnel_inetd(s, d, service):
    return [s.program, "-i", f"connect=127.0.0.1:{service}",
            f"cert={d}/server.pem", f"log={d}/inetd.log", "log_level=warning"]


def stunnel(s, d, port, service):
    return [s.program, write(d, "stunnel.conf", f"""\
foreground = yes
pid =
syslog = no
output = {d}/stunnel.log
debug = warning
[bench]
accept = 127.0.0.1:{port}
connect = 127.0.0.1:{service}
cert = {d}/server.pem
curves = {GROUPS}
""")]


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


def haproxy(s, d, port, service):
    tls = f" ssl crt {d}/server.pem" if s.kind == "peer" else ""
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
    server service 127.0.0.1:{service}
""")]


def nginx(s, d, port, service):
    module = s.program.replace("sbin/nginx",
                               "lib/nginx/modules/ngx_stream_module.so")
    tls = """ ssl;
        ssl_certificate server.pem;
        ssl_certificate_key server.pem;
        ssl_protocols TLSv1.2 TLSv1.3""" if s.kind == "peer" else ""
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
    }}
}}
""")]


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
    """It will not run as root, and wants all its directories to be named."""
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
        self.workers, self.connections = 1, 1000
        self.certificate = "ec"
        self.missing = None  # or why it is

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
    """A build of tunnel, from NAME=DIRECTORY."""
    name, d = word.split("=")
    d = os.path.abspath(d)
    return Server(name, d + "/tunnel", tunnel, ["-V"], kind="tunnel",
                  inetd=tunnel_inetd, crypto=d + "/crypto")


def floor(program):
    """The engine without TLS."""
    return Server("copy", program, copy, [], kind="floor")


HAPROXY = ["build/haproxy/usr/sbin/haproxy", "/usr/sbin/haproxy"]
NGINX = ["build/nginx/usr/sbin/nginx", "/usr/sbin/nginx"]

PEERS = [
    Server("stunnel", ["build/stunnel/usr/bin/stunnel", "/usr/bin/stunnel"],
           stunnel, ["-version"], inetd=stunnel_inetd, has_workers=False),
    Server("hitch", ["build/hitch/usr/sbin/hitch", "/usr/sbin/hitch"], hitch,
           ["--version"]),
    Server("haproxy", HAPROXY, haproxy, ["-v"]),
    Server("nginx", NGINX, nginx, ["-v"]),
    Server("apache", "/usr/sbin/apache2", apache, ["-v"], is_http=True),
    Server("ats", ["build/traffic_server/usr/bin/traffic_server",
                   "/usr/bin/traffic_server"], traffic_server, ["-V"],
           is_http=True, libraries="../lib/trafficserver"),
]

# The same without TLS, for those that can do that.
PLAINS = [Server("haproxy plain", HAPROXY, haproxy, [], kind="floor"),
          Server("nginx plain", NGINX, nginx, [], kind="floor")]
