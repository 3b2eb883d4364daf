"""Configurations of stunnel, and their conversions by hand, in one round,
after the messages of tunnel -t.
"""

import grp
import os
import pwd
import re
import shutil
import subprocess

import pytest

import support

# The original files with this test's paths, and their conversions: each line
# stood in the original, or was named in a message.
REDIS = """foreground = yes

[redis]
accept = 6380
connect = 127.0.0.1:6379
cert = {pem}
key = {pem}
CAfile = {ca}
verify = 2
"""
SYSLOG = """; a comment
setuid = nobody
setgid = {group}
pid = {dir}/stunnel.pid
;foreground = yes
debug = debug
output = {dir}/stunnel.log

[syslog]
client = no
accept = 6514
connect = 127.0.0.1:13031
cert = {pem}
verifyChain = yes
verifyPeer = yes
CAfile = {ca}
"""
MAIL = """pid = {dir}/stunnel.pid
cert = {pem}
client = no
socket = a:SO_REUSEADDR=1
socket = l:TCP_NODELAY=1
TIMEOUTclose = 0

[pop3s]
accept = 995
connect = 127.0.0.1:110

[imaps]
accept = 993
connect = 127.0.0.1:143

[ssmtp]
accept = 465
connect = 25
"""
OPENVPN = """chroot = {dir}
setuid = nobody
setgid = {group}
pid = {dir}/stunnel.pid
debug = 0
curve = secp384r1
sslVersion = all
options = NO_SSLv2
options = NO_SSLv3

[openvpn]
accept = 443
connect = 127.0.0.1:1194
renegotiation = no
ciphers = ECDHE-RSA-AES256-GCM-SHA384:ECDHE-RSA-CHACHA20-POLY1305:ECDHE-RSA-AES256-SHA
cert = {rsa}
CAfile = {ca}
verifyPeer = yes
"""
PSK = """foreground = yes
setuid = root
setgid = root
output = /dev/stdout
socket = l:TCP_NODELAY=1
client = no

[nfs]
accept  = 0.0.0.0:2049
connect = 127.0.0.1:2049
ciphers = PSK
PSKsecrets = {psk}
"""
SNI = """fips = no
compression = zlib

[api]
accept = :::443
connect = 80
cert = {pem}
ciphers = ECDHE-RSA-AES256-GCM-SHA384:ECDHE-RSA-AES128-GCM-SHA256
curve = secp384r1
TIMEOUTclose = 1
options = CIPHER_SERVER_PREFERENCE
sslVersion = TLSv1.2

[pool]
connect = 80
sni = api:pool
cert = {pem}
"""
CLIENT = """client = yes
foreground = yes
[redis-client]
accept = 127.0.0.1:6379
connect = 127.0.0.1:6380
checkHost = redis.example.org
CAfile = {ca}
verifyChain = yes
OCSPaia = yes
TIMEOUTidle = 70
"""
# Both ends in one file, as in stunnel's example.
BOTH = """setuid = nobody
setgid = {group}

[pop3]
client = yes
accept = 127.0.0.1:110
connect = 127.0.0.2:995
verifyChain = yes
CApath = {cas}
checkHost = pop.example.org
OCSPaia = yes

[https]
accept = 443
connect = 80
cert = {pem}
TIMEOUTclose = 0

[api]
client = yes
accept = 127.0.0.1:8080
connect = 127.0.0.2:443
sni = api.example.org
verifyPeer = yes
CAfile = {ca}
key = {key}
cert = {crt}
delay = yes
"""

CONVERTED = {
    "redis": (REDIS, ["""accept = 6380
connect = 127.0.0.1:6379
cert = {pem}
key = {pem}
ca = {ca}
verify = require
"""]),
    "syslog": (SYSLOG, ["""; a comment
user = nobody
group = {group}
pidfile = {dir}/stunnel.pid
;foreground = yes
log_level = debug
log = {dir}/stunnel.log
client = no
accept = 6514
connect = 127.0.0.1:13031
cert = {pem}
verify = require
peer = cert:{ca}
"""]),
    "mail": (MAIL, [f"""cert = {{pem}}
client = no
accept = {accept}
connect = {connect}
""" for accept, connect in [(995, "127.0.0.1:110"), (993, "127.0.0.1:143"),
                            (465, "25")]]),
    "openvpn": (OPENVPN, ["""chroot = {dir}
user = nobody
group = {group}
pidfile = {dir}/stunnel.pid
log_level = error
groups = secp384r1
accept = 443
connect = 127.0.0.1:1194
ciphers = TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384:TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256:TLS_AES_256_GCM_SHA384
cert = {rsa}
verify = require
peer = cert:{ca}
"""]),
    "nfs": (PSK, ["""user = root
group = root
log = /dev/stdout
client = no
accept  = 0.0.0.0:2049
connect = 127.0.0.1:2049
psk = {psk}
"""]),
    "client": (CLIENT, ["""client = yes
accept = 127.0.0.1:6379
connect = 127.0.0.1:6380
peer = dns:redis.example.org
ca = {ca}
verify = require
idle_timeout = 70s
"""]),
    "both": (BOTH, ["""user = nobody
group = {group}
client = yes
accept = 127.0.0.1:110
connect = 127.0.0.2:995
verify = require
ca = {cas}
peer = dns:pop.example.org
""", """user = nobody
group = {group}
accept = 443
connect = 80
cert = {pem}
""", """user = nobody
group = {group}
client = yes
accept = 127.0.0.1:8080
connect = 127.0.0.2:443
server_name = api.example.org
verify = require
peer = cert:{ca}
key = {key}
cert = {crt}
"""]),
}


def check(conf, *flags):
    return subprocess.run(
        [*support.UNDER, support.TUNNEL, "-t", *flags, "-c", conf],
        capture_output=True, text=True, timeout=support.DEADLINE)


@pytest.fixture
def fill(room, authority):
    """A text with the paths of existing files."""
    group = grp.getgrgid(pwd.getpwnam("nobody").pw_gid).gr_name
    psk = room.write("psk", "nfs:" + "0123456789abcdef" * 4 + "\n")
    os.chmod(psk, 0o600)

    def call(text):
        cas = room.path("cas")
        os.makedirs(cas, exist_ok=True)
        shutil.copy(authority.crt, cas)
        return text.format(dir=room.dir, pem=room.certs.server,
                           crt=room.certs.path("server.crt"),
                           key=room.certs.path("server.key"),
                           rsa=room.certs.rsa, ca=authority.crt, cas=cas,
                           group=group, psk=psk)

    return call


@pytest.fixture
def said(room, fill):
    """The messages about a text, by line."""

    def call(text):
        p = check(room.write("stunnel.conf", fill(text)))
        assert (p.returncode, p.stdout) == (2, "")
        where = re.compile(r"tunnel: error: \S*stunnel\.conf:(\d+): (.*)")
        found = {}
        for line in p.stderr.splitlines():
            match = where.fullmatch(line)
            assert match, line
            found.setdefault(int(match.group(1)), []).append(match.group(2))
        return found

    return call


@pytest.mark.parametrize("name", CONVERTED)
def test_each_line_is_answered(said, fill, name):
    """Each line missing from the conversion has one message, no other line has
    one, and the messages contain the new lines.
    """
    text, new = CONVERTED[name]
    found = said(text)
    lines = [x for part in new for x in fill(part).splitlines()]
    for number, line in enumerate(fill(text).splitlines(), 1):
        if line and line not in lines:
            assert len(found.pop(number)) == 1, line
    if os.getuid() == 0:
        assert not found
    words = " ".join(x for one in said(text).values() for x in one)
    for line in set(lines) - set(fill(text).splitlines()):
        key, value = line.split(" = ")
        value = "cert:FILE" if value.startswith("cert:") else value
        assert f"{key} = {value}" in words or (re.search(
            f'"{key}" here| {key} = ', " " + words) and value in words), line


@pytest.mark.parametrize("name", CONVERTED)
def test_sections_are_answered_with_instances(said, name):
    text, new = CONVERTED[name]
    words = [x for one in said(text).values() for x in one]
    instances = re.findall(r'"systemctl enable --now tunnel@([\w-]+)"',
                           " ".join(words))
    assert instances == re.findall(r"^\[([\w-]+)\]", text, re.M)
    assert len(instances) == len(new)


@pytest.mark.parametrize("name,part", [
    (name, i) for name in CONVERTED for i in range(len(CONVERTED[name][1]))])
def test_conversion_is_valid(room, fill, name, part):
    text = fill(CONVERTED[name][1][part])
    if "user = " in text and os.getuid() != 0:
        pytest.skip("only root can name a user")
    p = check(room.write("tunnel.conf", text), "-q")
    assert (p.returncode, p.stdout) == (0, ""), p.stderr


@pytest.mark.parametrize("text,line,words", [
    (SNI, "sni", "the backend is not chosen by server name"),
])
def test_unsupported_feature(said, text, line, words):
    """One clear message."""
    found = said(text)
    number, = [i for i, x in enumerate(text.splitlines(), 1)
               if x.startswith(line + " ")]
    assert [i for i, x in found.items() if words in " ".join(x)] == [number]
    assert len(found[number]) == 1
