"""Each message of the program has an example, and each that is logged is in
DIAGNOSTICS of tunnel(8).  The examples are what other tests expect, what the
program says here, and the few of UNPROVOKED.  With pytest -s the list is
printed, message by message, to be read from top to bottom.
"""

import os
import re
import subprocess

import pytest

import messages
import support

SOURCES = messages.messages()

# Wrong lines, and files that they need; each is one error at least.
LINES = """
accept = fd:x
accept = unix:
connect = localhost:http
cert = {cert} # a comment
mode = poll
mode = fork
workers = 5
max_connections = 4
ciphers = ,
ciphers = {many}
alpn = {long}
groups = x448
groups = P-999
key = {password}
key_password_file = {empty}
ticket_keys = {notes}
psk = {psk}
peer = x
exec = {many}
junk
{control}
{too_long}
"""
ARGUMENTS = [
    "-g a extra", "-g a -k", "-o file", "-r a", "-c a -c b", "-g ,", "-g a_b/",
    "-t cert={cert} accept=0 connect=1 workers=5 max_connections=4",
    "-t cert={cert} accept=0 -- ", "-t accept=0 cert={cert} connect=1 x",
    "-t cert={cert} accept=0 connect=1 cert={cert} key={key}",
    "-t cert={cert} accept=0 connect=1 ktls=require",
    "-t cert={crt} accept=0 connect=1", "-t cert={crt} key={cert} accept=0",
    "-t cert={crt} key={encrypted} accept=0 connect=1",
    "-t cert={crt} key={encrypted} key_password_file={notes} accept=0 "
    "connect=1",
    "-t cert={crt} key={other} accept=0 connect=1",
    "-t cert={cert} accept=0 connect=1 verify=require",
    "-t cert={cert} accept=0 connect=1 verify=require peer=cn:x peer=pin:"
    "sha256/47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
    "-t cert={cert} accept=0 connect=1 key_password_file={empty}",
    "-t client=yes accept=0 connect=bücher.example:1 verify=none",
    "-t psk={psk3} accept=0 connect=1", "-t psk={psk4} accept=0 connect=1",
    "-t psk={psk5} accept=0 connect=1 ciphers=TLS_ECDHE_RSA_WITH_AES_128_GCM_"
    "SHA256", "-t psk={psk5} accept=0 connect=1 peer=psk:other",
    "-t cert={cert} accept=0 connect=1 ciphers=TLS_ECDHE_RSA_WITH_AES_128_GCM_"
    "SHA256 tls_max=1.2",
    "-t cert={cert} accept=0 connect=1 mode=poll mode=fork",
    "-t cert={cert} accept=0 connect=1 groups=x448",
    "-t cert={cert} accept=0 connect=1 alpn={long}",
    "-t cert={cert} accept=0 connect=1 alpn={alpn}",
    "-t cert={cert} accept=0 connect=1 ciphers={suites}",
    "-t cert={cert} accept=0 connect=1 ticket_keys={notes}",
    "-t cert={cert} accept=0 connect=1 peer=cn:*",
    "-tq cert={cert} connect=1", "-t cert={cert} accept=0 connect=1",
    "cert={cert} accept=127.0.0.1:0 connect=1 {accepts}",
    "-p #x",
    "-t idle_timeout=x verify=3 ciphers=ECDHE-RSA-AES128-GCM-SHA256",
    "cert={cert} accept=fd:0 accept=fd:0 connect=1", "-h", "-V", "",
    "-t cert={cert} key={k1} accept=0 connect=1",
    "-t cert={cert} key={k2} accept=0 connect=1",
    "-t cert={cert} key={k3} accept=0 connect=1",
    "-t cert={cert} key={k4} accept=0 connect=1",
    "-t cert={cert} key={binary} accept=0 connect=1",
]

# What takes a fault of the system, another kernel or another library: how it
# looks.  A message that gets a test leaves this list.
UNPROVOKED = {
    "error: the handover from the previous program is unusable: a number is "
    "out of range",
    "warning: watchdog: not sending WATCHDOG=1: worker 4711 is not responding",
    "error: the mbed TLS library is older than 4.1.0",
    "error: the mbed TLS library is older than 4.1.1, and open to "
    "CVE-2026-49300",
    "error: mbed TLS cannot be initialized: perhaps the system has no entropy",
    "error: cannot start worker: the random number generator has no entropy: "
    "this mbed TLS reads it from a file such as /dev/random, which is missing "
    "in a sandbox or chroot",
    "error: the handover from the previous program is unusable: a value "
    "belongs to no option",
    "error: the handover from the previous program is unusable: a worker is "
    "not a child of this process",
    "error: the handover from the previous program is unusable: two workers "
    "have the same slot",
    "error: the handover from the previous program is unusable: there are too "
    "many workers",
    "error: upgrade failed: the addresses of names are not in a file",
    "error: the handover from the previous program is unusable: it has no "
    "configuration",
    "... 0.002s max_per_ip reached",
    "warning: connection refused: out of memory",
    "warning: tunnel.conf:2: db.example.org:5432 has more than 16 addresses: "
    "only the first ones are used",
    "warning: tunnel.conf:7: pidfile cannot be changed by a reload; restart to "
    "apply",
    "sandbox: workers that run a command are not restricted",
    "error: -i: descriptor 0 is not a connected socket: Transport endpoint is "
    "not connected",
    'kernel TLS: not supported by this kernel, or module "tls" is not loaded',
    "kernel TLS: not used: on this kernel, a partial record makes a worker use "
    "a whole CPU (use Linux 6.12 or newer)",
    "kernel TLS: TLSv1.3 with AES-128-GCM; but on this kernel, a partial "
    "record makes a worker use a whole CPU",
    "warning: 12 log lines dropped: the log's reader is too slow, or gone",
    "warning: cannot start worker: Resource temporarily unavailable",
    "error: session tickets: the random number generator has no entropy",
    "STATUS=serving, 2 workers; the last reload failed, see the log",
    "... 0.001s balancer closed without sending anything",
    "sandbox: this kernel has no Landlock: file access is not restricted",
    "sandbox: this kernel's Landlock is too old to restrict TCP ports",
    "sandbox: system calls are not filtered on this platform",
    "sandbox: not available on this system",
    "warning: max_connections reached: 1000; new connections replace "
    "handshakes older than 1 s, or wait",
    "error: standard output is a file that others can read (mode 0644): use "
    "-o FILE, which makes one that only you can read",
    "warning: stats_file cannot be written: Resource temporarily unavailable",
    "error: tunnel.conf:3: cert: chain.pem: the chain has 20000 bytes, but "
    "this mbed TLS can send only 16384",
    "... handshake: unsolicited extension",
    "... handshake: malformed certificate, or unknown critical extension",
    "... handshake: a certificate with an unknown signature algorithm",
    '... client certificate "CN=app1": it has an unknown signature algorithm',
    '... client certificate "CN=app1": its CRL is not trusted',
    "... its private key cannot be read (an encryption that this mbed TLS does "
    "not support)",
    "error: tunnel.conf:3: cert: server.pem: its private key cannot be used "
    "(out of memory)",
    "error: tunnel.conf:3: cert: server.pem: cannot be read to the end: "
    "Input/output error",
    '... client certificate "one of its issuers": revoked',
    "warning: tunnel.conf:3: cert: server.pem: the certificate has an RSA key "
    "of 1024 bits (clients refuse less than 2048)",
    "warning: tunnel.conf:3: cert: server.pem: the certificate has a key on "
    "secp384r1, which many clients refuse (all accept secp256r1)",
    "warning: tunnel.conf:3: cert: server.pem: the certificate has no subject "
    "alternative name, and clients check no other name",
    'warning: tunnel.conf:5: crl: the CRL of "CN=Some CA": expires in 2 days',
    "error: upgrade failed: /usr/sbin/tunnel -t failed (status 127)",
    "error: the previous program cannot be started: Permission denied",
    "error: cannot start worker: sandbox: Operation not permitted",
    "warning: worker 4711 is not ready after 30 s: killed",
    "... session resumed without extended master secret",
    "... its private key cannot be read (no private key in PEM format)",
    "... its private key cannot be read (wrong password in key_password_file)",
    "error: command line: accept: fd:3: it is set twice",
    "error: tunnel.conf:4: alpn: the names are too long together",
    "error: -p: the random number generator has no entropy",
}


@pytest.fixture(scope="module")
def among(certs, tmp_path_factory):
    """All examples."""
    made = tmp_path_factory.mktemp("messages")

    def write(name, text):
        (made / name).write_bytes(text.encode() if isinstance(text, str) else
                                  text)
        (made / name).chmod(0o600)
        return str(made / name)

    def genpkey(name, curve):
        support.run("openssl", "ecparam", "-name", curve, "-genkey", "-noout",
                    "-out", str(made / name))
        return str(made / name)

    key = "0" * 64
    values = {
        "cert": certs.server, "crt": certs.path("server.crt"),
        "key": certs.path("server.key"), "other": certs.path("rsa.key"),
        "encrypted": write("encrypted", support.run(
            "openssl", "pkey", "-aes256", "-passout", "pass:x", "-in",
            certs.path("server.key"))),
        "empty": write("empty", ""), "notes": write("notes", "x\n"),
        "password": write("password", "x\n"), "many": "x " * 100,
        "long": "x" * 300, "alpn": ",".join(["x" * 250 + str(i)
                                             for i in range(300)]),
        "suites": ",".join(["TLS_AES_128_GCM_SHA256"] * 40),
        "control": "\x01", "too_long": "x" * 2000000,
        "accepts": " ".join(f"accept=unix:{made}/{i}" for i in range(70)),
        "psk": write("psk", "#x:1\n:1\n"), "binary": write("binary",
                                                           b"\xff\xfe0"),
        "psk3": write("psk3", "app1:zz\n"),
        "psk4": write("psk4", f"app1:{key}\napp1:{key}\n"),
        "psk5": write("psk5", f"app1:{key}\n"),
        **{f"k{i + 1}": genpkey(f"k{i}", curve) for i, curve in enumerate(
            ("secp256k1", "prime192v1", "secp224r1", "secp521r1"))}}

    found = messages.examples() + [("unprovoked", x) for x in UNPROVOKED]

    def add(*arguments):
        p = subprocess.run([support.TUNNEL, *arguments], text=True,
                           capture_output=True, stdin=subprocess.DEVNULL,
                           timeout=support.DEADLINE, check=False, cwd=made)
        found.extend(("tunnel", line) for line in
                     [*(p.stdout + p.stderr).splitlines(), p.stdout])

    for words in ARGUMENTS:
        add(*words.format(**values).split())
    good = f"accept = 127.0.0.1:0\nconnect = 1\ncert = {certs.server}\n"
    for line in LINES.strip().splitlines():
        add("-t", "-c", write("tunnel.conf", good + line.format(**values)))
    keys = support.run(support.TUNNEL, "-h").decode().split(" them:\n")[1]
    for key in re.findall(r"\b[a-z_]+\b", keys):
        add(f"{key}=")
    with open(os.path.join(support.TOP, "lib", "hints.c")) as f:
        hints = re.findall(r'\{ (?:([A-Z]+), )?"(\w+)"(?:, "([^"]*)")?',
                           f.read())
    for option, name, value in hints:
        name = option.lower() or name
        add("-t", *([f"{name}={value}"] if option else
                    [f"{name}={value or 'x'}", f"{name}=0"]))
        if option:
            add("-t", f"{name}={dict(VERIFY='1').get(option, value)}")
    return found


def test_each_message_has_an_example(among):
    missing = []
    for m in SOURCES:
        example = messages.find_example(m.text, among)
        if example is None:
            missing.append(m)
        else:
            print(f"{m.place}: {m.level} {m.text!r}\n\t{example[1]!r}")
    assert not missing, "\n".join(f"{m.place}: {m.text!r}" for m in missing)


# These rooms read a configuration: DIAGNOSTICS has the form of their errors,
# which say themselves what is allowed.
CONFIGURATION = {
    "arguments", "config", "config_role", "generation_tls", "hints", "net",
    "options", "secret", "tls_config", "tls_files", "tls_generate", "tls_pem",
    "tls_psk", "tls_rules", "tls_suites", "tls_ticket"}
# What ends a connection, and warnings of TLS.
REASONS = {"abort_all", "conn_dial", "conn_end", "conn_set_reason",
           "connection_fail", "forward_abort_all", "worker_drain",
           "tls_reject", "warn"}
OF_FILES = {"an encryption that this mbed TLS does not support",
            "it is encrypted; set key_password_file",
            "wrong password in key_password_file",
            "no private key in PEM format",
            "PEM - No PEM header or footer found"}


def is_logged(m):
    room = re.sub(r"(lib/)?(\w+)\.c:.*", r"\2", m.place)
    return room not in CONFIGURATION and m.text not in OF_FILES and (
        m.level in ("error", "warning", "notice") or m.call in REASONS or
        room in ("tls_error", "sandbox"))


@pytest.mark.parametrize("m", filter(is_logged, SOURCES), ids=lambda m: m.text)
def test_each_message_is_in_the_manual(m):
    """A part of it that is no other's: what it names may be left out."""
    parts = [messages.words(x) for x in re.split(
        "[(:;]", "(".join(messages.fragments(m.text)))]
    found = messages.diagnostics()
    longest = max(parts, key=len)
    assert longest in found or any(x.count(" ") > 1 and x in found
                                   for x in parts)


def test_no_example_is_of_another_time():
    """What UNPROVOKED has, the program may still say."""
    longest = [max(messages.fragments(m.text), key=len) for m in SOURCES
               if messages.fragments(m.text)]
    for example in UNPROVOKED:
        assert any(len(x) > 9 and x in example for x in longest), example
