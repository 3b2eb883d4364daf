"""X25519MLKEM768, beyond tests/tls/test_mlkem.py: known answers for
ML-KEM-768, both roles of the patched library, and OpenSSL 3.5 and curl in a
bare Debian 13.
"""

import os
import re
import shutil
import subprocess

import pytest

from support import TESTS, TOP, UNDER, run, why_no_accel

pytestmark = [
    pytest.mark.more,
    pytest.mark.skipif("TUNNEL_VARIANT" in os.environ or bool(UNDER),
                       reason="makes its own build"),
    pytest.mark.skipif(why_no_accel() is not None, reason=str(why_no_accel())),
    pytest.mark.seconds(900),
]
O = "build/post-quantum"
HERE = os.path.join(TOP, O)
INSIDE = os.path.join(TOP, "build/debian13/srv/tunnel", O)
WARNINGS = ("-Wall -Wextra -Wpedantic -Wshadow -Wconversion "
            "-Wstrict-prototypes -Werror")


@pytest.fixture(scope="module")
def aws_lc():
    """The directory of the build with AWS-LC, after making the tunnel there.
    """
    run("make", "-s", "-C", TOP, "ACCEL=aws-lc", f"O={O}",
        f"TUNNEL={O}/tunnel", timeout=900)
    machine = run("cc", "-dumpmachine").decode().strip()
    return os.path.join("build", "aws-lc", machine)


@pytest.fixture(scope="module")
def library(aws_lc):
    """mbed TLS of that build, and a client."""
    files = [os.path.join("mbedtls", "aws-lc", name) for name in
             os.listdir(os.path.join(TOP, "mbedtls", "aws-lc"))
             if name != "tested"]
    files += ["mbedtls/random.c", *(f"mbedtls/everest_driver.{x}"
                                    for x in ("c", "h", "json"))]
    patches = sorted(os.listdir(os.path.join(TOP, "mbedtls", "patches")))
    run("mbedtls/build", "library", "build/mbedtls-source", f"{O}/library",
        *files, cwd=TOP, timeout=600, env={
            **os.environ, "CONFIG": "mbedtls/config.h",
            "FLAGS": "mbedtls/flags.mk", "PYTHON": "/usr/bin/python3",
            "PATCHES": " ".join(f"mbedtls/patches/{x}" for x in patches),
            "CFLAGS": f"-O1 -g -isystem {TOP}/{aws_lc}/include",
            "DEFINES": "TUNNEL_AWS_LC"})
    return f"{O}/library"


def build(aws_lc, library, name, *flags):
    path = os.path.join(HERE, name)
    run("cc", "-std=c11", "-D_GNU_SOURCE", *WARNINGS.split(), "-g", "-O1",
        *flags, "-isystem", f"{library}/include", "-isystem",
        f"{aws_lc}/include", "-o", path, "tests/unit/hybrid.c",
        "-Wl,--wrap=calloc,--wrap=free", f"-L{library}/lib", "-lmbedtls",
        "-lmbedx509", "-lmbedcrypto", f"{aws_lc}/lib/libaws-lc.a",
        "-lcmocka", cwd=TOP, timeout=300)
    return path


def test_library(room, aws_lc, library):
    program = build(aws_lc, library, "hybrid",
                    "-fsanitize=address,undefined",
                    "-fno-sanitize-recover=all")
    print(run(program, room.certs.server, timeout=300).decode())


@pytest.fixture(scope="module")
def debian13(aws_lc, library, certs):
    """A function that runs a script there, beside our programs; returns its
    output.
    """
    def inside(script):
        p = subprocess.run(
            [os.path.join(TESTS, "debian13"), "sh", "-euc", script],
            stdout=subprocess.PIPE, text=True, stderr=subprocess.STDOUT,
            timeout=900, errors="replace",
            env={**os.environ, "PACKAGES": "curl openssl"})
        if p.returncode == 77:
            pytest.skip(p.stdout.splitlines()[-1])
        assert p.returncode == 0, p.stdout[-20000:]
        return p.stdout

    inside("true")
    os.makedirs(INSIDE, exist_ok=True)
    program = build(aws_lc, library, "client")
    found = re.search(r"=> (/\S+libcmocka\S+)", run("ldd", program).decode())
    for path in (program, found.group(1), certs.server, certs.ca,
                 os.path.join(HERE, "tunnel")):
        shutil.copy(path, INSIDE)
    return lambda script: inside(f"cd {O}; {script}")


# serve starts a tunnel; ask prints the output of OpenSSL's client; stop prints
# the log lines of the connections.
SERVE = r"""
serve() {
	rm -f log
	./tunnel accept=127.0.0.1:0 cert=server.pem log=log "$@" &
	until grep -q "listening on" log 2>/dev/null; do sleep 0.05; done
	to=$(sed -n 's/.*listening on //p' log)
}
ask() {
	echo hello | openssl s_client -connect "$to" -servername localhost \
	    -CAfile ca.crt -ign_eof "$@" 2>&1 |
	    grep -E "^(hello|Negotiated|Reused|Verify return code|.*alert)" ||
	    echo nothing
}
stop() { kill $! && wait $! || :; grep -c " in=" log; cat log; }
trap 'kill $! 2>/dev/null || :' EXIT
"""
ECHO = "-- sh -c 'read line && echo $line'"


def logged(said):
    """Return the groups of the connections from the log."""
    return re.findall(r" TLSv1\.\d TLS_\w+ (\w+) ", said)


@pytest.mark.parametrize("groups,theirs,taken", [
    ("", "", "x25519mlkem768"),
    ("", "-groups '*X25519/*X25519MLKEM768'", "x25519mlkem768"),
    ("", "-groups '*X25519/X25519MLKEM768'", "x25519"),
    ("", "-groups P-256", "secp256r1"),
    ("", "-maxfraglen 512", "x25519mlkem768"),
    ("groups=x25519mlkem768", "-groups '*X25519/X25519MLKEM768'",
     "x25519mlkem768"),
    ("groups=x25519", "-groups '*X25519MLKEM768/X25519'", "x25519"),
])
def test_openssl_client(debian13, groups, theirs, taken):
    said = debian13(f"{SERVE} serve {groups} {ECHO}; ask {theirs}; stop")
    assert "hello\n" in said and "Verify return code: 0 (ok)" in said
    assert logged(said) == [taken]


def test_openssl_client_resumes(debian13):
    said = debian13(f"{SERVE} serve {ECHO}; ask -sess_out session; "
                    "ask -sess_in session; stop")
    assert said.count("hello\n") == 2 and "Reused, TLSv1.3" in said
    assert logged(said) == ["x25519mlkem768"] * 2
    assert " x25519mlkem768 resumed " in said


def test_openssl_client_of_tls12(debian13):
    said = debian13(f"{SERVE} serve groups=x25519mlkem768 {ECHO}; "
                    "ask -tls1_2; stop")
    assert "alert protocol version" in said


def test_curl(debian13):
    said = debian13(
        SERVE + r"serve -- sh -c 'read line; printf "
        r""""HTTP/1.0 200 OK\r\n\r\nhello\n"'; """
        "curl -sS --http1.0 --cacert ca.crt --connect-to "
        '"localhost:443:$to" https://localhost/; stop')
    assert "hello\n" in said
    assert logged(said) == ["x25519mlkem768"]


@pytest.mark.parametrize("theirs,groups,taken", [
    ("", "0x11ec,29", "X25519MLKEM768"),
    ("-groups X25519MLKEM768", "29,0x11ec", "X25519MLKEM768"),
    ("-groups X25519", "0x11ec,29", "ecdh_x25519"),
])
def test_openssl_server(debian13, theirs, groups, taken):
    said = debian13(rf"""
	rm -f said
	openssl s_server -accept 127.0.0.1:8443 -cert server.pem -rev \
	    -naccept 1 -trace {theirs} >said 2>&1 &
	trap 'kill $! 2>/dev/null || :' EXIT
	until grep -q ACCEPT said 2>/dev/null; do sleep 0.05; done
	LD_LIBRARY_PATH=. ./client 127.0.0.1 8443 {groups}; cat said""")
    assert "6 olleh\n" in said
    shares = re.findall(r"NamedGroup: (\w+)", said)
    assert shares and shares[-1] == taken
    # A second hello only if the first one did not offer the group.
    assert said.count("ClientHello, Length=") == (
        2 if groups.startswith("29") else 1)
