"""The figures of CPU time: name, group, title, arguments of the client, and
the factor for seconds per unit of work.
"""

HYBRID = "X25519MLKEM768"
SUITES = {"default": [], "aes128": ["-s", "TLS_AES_128_GCM_SHA256"],
          "chacha": ["-s", "TLS_CHACHA20_POLY1305_SHA256"]}
# Figures that are also measured without TLS.
PLAIN = ("full1.3", "down_default", "up_default", "trip")


def handshakes(n, name, title, *words):
    conns = int(240 * n)
    return (name, "handshakes", title, [*words, "connections", str(conns)],
            1e6 / conns)


def bulk_size(n):
    return int(256e6 * n) // 65536 * 65536


def cpu_figures(n):
    """n: the amount of work."""
    rows = [handshakes(n, f"{how}{version}", f"{how}, TLS {version}", "-v",
                       version, *words)
            for version in ("1.3", "1.2")
            for words, how in (([], "full"), (["-r"], "resumed"))]
    size, trips = bulk_size(n), int(10000 * n)
    for suite, words in SUITES.items():
        for way in ("down", "up"):
            rows.append((f"{way}_{suite}", "bulk", f"{way} {suite}",
                         [*words, way, str(size)], 1e9 / size))
    rows.append(("trip", "trips", "server CPU of a round trip",
                 ["trips", str(trips)], 1e6 / trips))
    return rows


def hybrid_figures(n):
    return [handshakes(n, "hybrid1.3", f"full, TLS 1.3, {HYBRID}", "-g",
                       HYBRID)]


def rsa_figures(n):
    """Of servers with an RSA certificate."""
    return [handshakes(n, f"rsa{version}", f"full, TLS {version}, RSA-2048",
                       "-v", version) for version in ("1.3", "1.2")]


def psk_figures(n):
    """Of servers with a shared key instead of a certificate."""
    return [handshakes(n, f"psk{version}", f"full, TLS {version}, shared key",
                       "-v", version) for version in ("1.3", "1.2")]


def client_figures(n):
    """Of the client role, with a plain TCP client: without session resumption,
    and with the default configuration.
    """
    size, trips = bulk_size(n), int(10000 * n)
    full, usual = ((name, "client", *rest) for name, _, *rest in (
        handshakes(n, "client_full", "full"),
        handshakes(n, "client_usual", "as it comes")))
    return [full], [
        usual,
        ("client_down", "client", "from the server", ["down", str(size)],
         1e9 / size),
        ("client_up", "client", "to the server", ["up", str(size)],
         1e9 / size),
        ("client_trip", "client", "round trip", ["trips", str(trips)],
         1e6 / trips)]


def http_figures(n):
    conns, trips, size = int(240 * n), int(5000 * n), bulk_size(n)
    return [
        ("http_full", "http", "full 1.3 + GET + close",
         ["-h", "connections", str(conns)], 1e6 / conns),
        ("http_resumed", "http", "resumed 1.3 + GET + close",
         ["-h", "-r", "connections", str(conns)], 1e6 / conns),
        ("http_down", "http", "GET of a big body", ["-h", "down", str(size)],
         1e9 / size),
        ("http_up", "http", "POST of a big body", ["-h", "up", str(size)],
         1e9 / size),
        ("http_trip", "http", "keep-alive GET of 1 byte",
         ["-h", "trips", str(trips)], 1e6 / trips)]


def unit_of(figure, group):
    return "s/GB" if group == "bulk" or figure in (
        "http_down", "http_up", "client_down", "client_up") else "µs"
