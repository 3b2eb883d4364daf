"""Client certificates with common clients: OpenSSL, GnuTLS, curl, and
redis-cli.
"""

import re

import pytest

import der
import support
from certificates import DAY, RSA, Authority, pin
from programs import commands, curl, tls_flags
from reloads import Configured
from support import need, run


@pytest.fixture(scope="module")
def pki(authority):
    """Certificates by the name of their case."""
    app1, revoked = authority.leaf("app1"), authority.leaf("bad")
    sub = authority.sub()
    return {
        "app1": app1, "RSA": authority.leaf("app1", key=RSA),
        "sub": sub.leaf("app1", send=[sub]), "missing": sub.leaf("bad"),
        "other": Authority(authority.dir, "Other CA").leaf("bad"),
        "expired": authority.leaf("bad", starts=-9 * DAY,
                                  ends=-DAY),
        "for servers": authority.leaf("bad", usage="serverAuth"),
        "revoked": revoked, "crl": authority.crl(revoked), "none": None,
        "rule": authority.leaf("bad2"),
    }


@pytest.fixture
def start(room, authority, pki):
    def call(service=support.echo):
        backend = room.backend().serve(service)
        return room.tunnel(
            f"connect={backend.address}", "verify=require",
            f"ca={authority.crt}", f"crl={pki['crl']}", "peer=cn:app1",
            "peer=cn:bad", "peer=cn:Self")

    return call


# The reason, and the number of the alert.
REFUSED = {
    "none": ("no client certificate", {"1.2": 40, "1.3": 116}),
    "other": ("unknown issuer", 48), "missing": ("unknown issuer", 48),
    "expired": ("expired 24 hours ago", 45), "revoked": ("revoked", 44),
    "for servers": ("not for client authentication", 43),
    "rule": ("no peer rule matches", 49),
}

# RFC 8446, section 6.2.
ALERTS = {
    40: "handshake failure", 43: "unsupported certificate",
    44: "certificate revoked", 45: "certificate expired", 48: "unknown ca",
    49: "access denied", 116: "certificate required",
}


@pytest.fixture(params=REFUSED)
def refused(request, pki, version):
    """A client certificate, the reason for its refusal, and the alert number.
    """
    reason, number = REFUSED[request.param]
    if isinstance(number, dict):
        number = number[version]
    return pki[request.param], reason, number


# OpenSSL.

def s_client(certs, t, version, pem, *arguments, **keywords):
    own = ["-cert", pem, "-key", pem, "-cert_chain", pem] if pem else []
    return run("openssl", "s_client", "-connect", t.address, "-servername",
               "localhost", "-CAfile", certs.ca,
               "-tls" + version.replace(".", "_"), *own, *arguments,
               **keywords).decode(errors="replace")


@pytest.mark.parametrize("whose", ["app1", "RSA", "sub"])
def test_openssl(certs, start, pki, version, whose):
    t = start(support.http)
    out = s_client(certs, t, version, pki[whose], "-quiet", "-ign_eof",
                   stdin=b"GET /5 HTTP/1.0\r\n\r\n")
    assert out.endswith("\r\n\r\nxxxxx")
    t.wait_log(f' TLSv{version} .* client="CN=app1" in=19 .* closed$')


def test_openssl_is_refused(certs, start, version, refused):
    pem, reason, number = refused
    t = start()
    # in TLS 1.3, without -ign_eof it would leave before the alert
    out = s_client(certs, t, version, pem, "-ign_eof", status=1)
    assert re.findall(r"SSL alert number (\d+)", out) == [str(number)]
    t.wait_log(f" -> - .* {reason}")


def test_openssl_resumes(room, certs, start, pki, version):
    t = start(support.http)
    path = room.path("session")
    for flag, word in (("-sess_out", "New"), ("-sess_in", "Reused")):
        out = s_client(certs, t, version, pki["app1"], flag, path, "-ign_eof",
                       stdin=b"GET /5 HTTP/1.0\r\n\r\n")
        assert re.search(f"^{word}, TLSv{version}", out, re.M), out
    t.wait_log(' resumed sni=localhost client="CN=app1" in=19 ')


def suites(bits, digest):
    """Suites of both versions."""
    return (f"TLS_AES_{bits}_GCM_SHA{digest}, "
            f"TLS_ECDHE_ECDSA_WITH_AES_{bits}_GCM_SHA{digest}")


@pytest.mark.parametrize("kind", ["1.2 ticket", "1.2 ID", "1.3 ticket"])
@pytest.mark.parametrize("verify", ["request", "require"])
def test_openssl_returns_without_its_certificate(room, certs, authority, pki,
                                                 kind,
                                                 verify):
    """The client returns with a session that cannot be resumed because of its
    suite, and without the certificate: its earlier identity does not count.
    """
    backend = room.backend().serve(support.http)
    c = Configured(room, connect=backend.address, verify=verify,
                   ca=authority.crt, ciphers=suites(256, 384))
    version, how = kind.split()
    flags = ["-ign_eof"] + (["-no_ticket"] if how == "ID" else [])
    path, request = room.path("session"), b"GET /5 HTTP/1.0\r\n\r\n"
    s_client(certs, c.t, version, pki["app1"], "-sess_out", path, *flags,
             stdin=request)
    # A check of the test itself: the session is good, with and without the
    # certificate.
    out = s_client(certs, c.t, version, None, "-sess_in", path, *flags,
                   stdin=request)
    assert f"Reused, TLSv{version}" in out
    assert 'client="CN=app1"' in c.t.wait_log(" in=19 ", 2)
    c.reload(ciphers=suites(128, 256))
    if verify == "require":
        s_client(certs, c.t, version, None, "-sess_in", path, *flags,
                 status=1)
        c.t.wait_log(" -> - .* no client certificate$")
    else:
        out = s_client(certs, c.t, version, None, "-sess_in", path, *flags,
                       stdin=request)
        assert f"New, TLSv{version}" in out
        assert "client=" not in c.t.wait_log(" in=19 ", 3)


def test_openssl_receives_ca_names(certs, authority, start):
    """Only in TLS 1.2: mbed TLS sends no names in TLS 1.3."""
    out = s_client(certs, start(), "1.2", None, status=1)
    assert re.search("Acceptable client certificate CA names\n"
                     "CN ?= ?Test CA\n", out), out


def test_openssl_receives_no_ca_names_with_pins(
        room, certs, authority, backend, pki, version):
    """Clients send only certificates of the named issuers (RFC 5246, 7.4.4).
    """
    t = room.tunnel(f"connect={backend.address}", "verify=require",
                    f"ca={authority.crt}",
                    f"peer={pin(pki['other'])}")
    out = s_client(certs, t, version, None, "-ign_eof", status=1)
    assert "No client certificate CA names sent" in out, out


# GnuTLS.

def gnutls(certs, t, version, pem, *arguments, **keywords):
    need("gnutls-cli")
    command = commands(certs, t.address.rsplit(":", 1)[1])["gnutls-cli"](
        version)
    own = ["--x509certfile=" + pem, "--x509keyfile=" + pem] if pem else []
    return run(*command[:-1], *own, *arguments, command[-1], **keywords)


@pytest.mark.parametrize("whose", ["app1", "RSA", "sub"])
def test_gnutls(certs, start, pki, version, whose):
    t = start(support.http)
    out = gnutls(certs, t, version, pki[whose],
                 stdin=b"GET /300000 HTTP/1.0\r\n\r\n")
    assert out.endswith(b"\r\n\r\n" + b"x" * 300000)
    t.wait_log(f' TLSv{version} .* client="CN=app1" in=24 .* closed$')


def test_gnutls_is_refused(room, certs, start, version, refused):
    pem, reason, number = refused
    t, log = start(support.http), room.path("gnutls.log")
    out = gnutls(certs, t, version, pem, f"--logfile={log}", status=1,
                 stdin=b"GET /5 HTTP/1.0\r\n\r\n")
    t.wait_log(f" -> - .* {reason}")
    assert f"Received alert [{number}]" in support.text_of(log), out


def test_gnutls_with_a_pinned_certificate(room, certs, authority, backend, pki,
                                          version):
    backend.serve(support.http)
    t = room.tunnel(f"connect={backend.address}", "verify=require",
                    f"ca={authority.crt}", "peer=cn:app1",
                    f"peer={pin(pki['other'])}")
    out = gnutls(certs, t, version, pki["other"],
                 stdin=b"GET /5 HTTP/1.0\r\n\r\n")
    t.wait_log(' client="CN=bad" ')
    assert out.endswith(b"\r\n\r\nxxxxx")


# More authorities than fit into a request.  A Java client sends nothing if its
# own authority is not on the list, and would be served as a client without a
# certificate.

@pytest.fixture(scope="module")
def many(certs, authority):
    """A file of authorities; the last one is the client's."""
    path, key = certs.path("many.pem"), der.public_key(authority.key)
    made = [der.certificate(x, x, key, lambda tbs: b"\x30\6\2\1\1\2\1\1",
                            der.CA)
            for x in (der.name(*[f"{i:060d}"] * 3) for i in range(100))]
    with open(path, "w") as f:
        f.write(der.pem(*made) + support.text_of(authority.crt))
    return path


def test_openssl_receives_no_ca_names_or_all(room, certs, many,
                                             version):
    t = room.tunnel("connect=1", "verify=require", f"ca={many}")
    out = s_client(certs, t, version, None, "-ign_eof", status=1)
    assert "No client certificate CA names sent" in out, out


JAVA = """
import java.io.FileInputStream;
import java.security.KeyStore;
import java.security.cert.X509Certificate;
import javax.net.ssl.*;

class Client {
	public static void main(String[] a) throws Exception {
		KeyStore own = KeyStore.getInstance("PKCS12");
		own.load(new FileInputStream(a[0]), "x".toCharArray());
		KeyManagerFactory keys = KeyManagerFactory.getInstance("PKIX");
		keys.init(own, "x".toCharArray());
		X509TrustManager any = new X509ExtendedTrustManager() {
			public void checkClientTrusted(X509Certificate[] c, String s) {}
			public void checkServerTrusted(X509Certificate[] c, String s) {}
			public void checkClientTrusted(X509Certificate[] c, String s,
			    java.net.Socket k) {}
			public void checkServerTrusted(X509Certificate[] c, String s,
			    java.net.Socket k) {}
			public void checkClientTrusted(X509Certificate[] c, String s,
			    SSLEngine e) {}
			public void checkServerTrusted(X509Certificate[] c, String s,
			    SSLEngine e) {}
			public X509Certificate[] getAcceptedIssuers() {
				return new X509Certificate[0];
			}
		};
		SSLContext ctx = SSLContext.getInstance("TLS");
		ctx.init(keys.getKeyManagers(), new TrustManager[] { any }, null);
		SSLSocket s = (SSLSocket)ctx.getSocketFactory().createSocket(
		    "127.0.0.1", Integer.parseInt(a[1]));
		s.setEnabledProtocols(new String[] { "TLSv" + a[2] });
		s.getOutputStream().write("GET /5 HTTP/1.0\\r\\n\\r\\n".getBytes());
		System.out.write(s.getInputStream().readAllBytes());
		System.out.flush();
	}
}
"""


@pytest.mark.seconds(60)
def test_java_with_many_authorities(room, backend, pki, many, version):
    need("javac")
    backend.serve(support.http)
    t = room.tunnel(f"connect={backend.address}", "verify=request",
                    f"ca={many}", "handshake_timeout=60s")
    store = room.path("store.p12")
    run("openssl", "pkcs12", "-export", "-in", pki["app1"], "-passout",
        "pass:x", "-out", store)
    out = run("java", room.write("Client.java", JAVA), store,
              t.address.rsplit(":", 1)[1], version,
              timeout=5 * support.DEADLINE)
    assert out.endswith(b"\r\n\r\nxxxxx"), out
    assert 'client="CN=app1" in=' in t.wait_log(" in=")


# curl

@pytest.mark.parametrize("whose", ["app1", "RSA", "sub"])
def test_curl(room, start, pki, version, whose):
    t = start(support.http)
    pem = pki[whose]
    assert curl(room, t, "--cert", pem, "--key", pem, "--tlsv" + version,
                "--tls-max", version, "URL/300000") == b"x" * 300000
    t.wait_log(f' TLSv{version} .* client="CN=app1" in=')


def test_curl_is_refused(room, start, version, refused):
    """curl reports the reason, although in TLS 1.3 it has sent its request by
    then.
    """
    pem, reason, number = refused
    t = start(support.http)
    own = ["--cert", pem, "--key", pem] if pem else []
    out = curl(room, t, *own, "--tlsv" + version, "--tls-max", version,
               "URL/5", status=None).decode()
    assert re.match(rf"curl: \(\d+\) (.* alert {ALERTS[number]}|"
                    # curl's name for certificate_expired during a handshake
                    "SSL certificate verification failed)", out)
    t.wait_log(f" -> - .* {reason}")


def test_curl_resumes(room, start, pki, version):
    """Two connections within one run of curl, which resumes by default."""
    t = start(support.http)
    pem = pki["app1"]
    assert curl(room, t, "--cert", pem, "--key", pem, "--tlsv" + version,
                "--tls-max", version, "-H", "Connection: close", "-0",
                "URL/5", "URL/6") == b"x" * 11
    t.wait_log(' resumed sni=localhost client="CN=app1" in=')


# redis-cli, and redis itself.

@pytest.mark.parametrize("whose", ["app1", "RSA"])
def test_redis(room, authority, redis, pki, whose):  # noqa: F811
    t = room.tunnel(f"connect=unix:{room.path('redis.sock')}",
                    "verify=require", f"ca={authority.crt}", "peer=cn:app1")
    pem = pki[whose]
    flags = [*tls_flags(room, t), "--cert", pem, "--key", pem]
    assert run("redis-cli", *flags, "SET", "key", "value") == b"OK\n"
    assert run("redis-cli", *flags, "GET", "key") == b"value\n"
    t.wait_log(' client="CN=app1" in=')
    out = run("redis-cli", *tls_flags(room, t), "GET", "key", status=None)
    assert b"value" not in out
    t.wait_log(" -> - .* no client certificate$")
