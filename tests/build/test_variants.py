"""The same scenarios for every build variant, and some of them under valgrind.
"""

import os
import platform
import shutil
import subprocess
import sys
import threading

import pytest

from support import TOP, UNDER, Task, files_of, run, why_no_accel

# Each file mainly tests one part of the program: a variant repeats the files
# for the parts that it may alter.
STREAMS = ["end_of_stream", "client_ends", "early_answers", "transfer",
           "endpoints", "timeouts", "hostile_peers", "hostile_servers",
           "flights"]
PROCESSES = ["workers", "daemon", "log", "statistics", "reload", "supervisors",
             "privileges", "sandbox", "confinement", "files", "inherited",
             "resolve", "pipes"]
CROWDS = ["crowds", "exhaustion", "max_connections", "max_per_ip",
          "client_side_limits"]
LIBRARY = ["negotiation", "alerts", "early_data", "client_certs",
           "chain_verdicts", "hostile_certs", "peer_rules", "trust_settings",
           "server_names", "cert_warnings", "client_sessions",
           "session_binding", "resumption", "session_cache", "ticket_keys",
           "tickets_hostile", "groups"]
PROXY = ["proxy_protocol", "proxy_tlvs", "accept_proxy", "bad_proxy_headers"]

SCENARIOS = {
    # Memory errors, in all parts.
    "sanitize": STREAMS + PROCESSES + CROWDS + LIBRARY + PROXY + [
        "errors", "reports", "tls_clients", "client_cert_programs"],
    # Events.
    "poll": STREAMS + ["workers", *CROWDS, "accept_proxy"],
    # Another compiler; static linking.
    "clang": STREAMS + ["negotiation", "daemon", "log", "reload",
                        "client_sessions"],
    "static": STREAMS + ["daemon", "log", "privileges", "resumption",
                         "hardening"],
    # mbed TLS without our patches and configuration.
    "stock": ["end_of_stream", "client_ends", "hostile_peers", "random",
              "reports", "hardening", *LIBRARY],
    # The features that OpenWrt's package of mbed TLS lacks; a shared library.
    "openwrt": ["end_of_stream", "hostile_peers", "random", "reports",
                "sandbox", "privileges", *LIBRARY],
    # The random source of a shared library, in the sandbox.
    "musl-shared": ["random", "sandbox", "confinement", "privileges", "reload",
                    "end_of_stream", "negotiation", "resumption",
                    "tickets_hostile"],
    # The C library, and memory allocated by mbed TLS.
    "musl": STREAMS + PROCESSES + [
        "errors", "reports", "random", "hardening", "library", "negotiation",
        "chain_verdicts", "hostile_certs", "trust_settings", "resumption",
        "session_cache", "tickets_hostile", "proxy_protocol"],
    # All cryptography and keys, and randomness after fork(2).
    "accel": ["transfer", "end_of_stream", "client_ends", "hostile_peers",
              "workers", "reload", "privileges", "sandbox", "confinement",
              "random", "library", "mlkem", "reports", "failing_memory",
              "client_side", *LIBRARY],
    # The client role, between each test's tunnel and its backend.
    "pair": STREAMS + CROWDS,
    "valgrind": ["end_of_stream", "endpoints", "client_ends"],
}



def without_ours(name, *words):
    """An mbed TLS built by tests/deps without our patches and configuration.
    """
    where = os.path.join(TOP, "build", name)
    shared = os.path.join(where, "shared")
    return [f"MBEDTLS={where}", "ALLOW_OLD_MBEDTLS=1",
            f"LDFLAGS=-L{shared} -Wl,-rpath,{shared}", *words]


STOCK = os.path.join(TOP, "build", "mbedtls")
# Debian's kernel headers are not in musl-gcc's search path.
MUSL = ["CC=musl-gcc", "CPPFLAGS=-idirafter /usr/include -idirafter "
        f"/usr/include/{platform.machine()}-linux-gnu"]

# Arguments of make.  The slowest variants come first.
VARIANTS = {
    "sanitize": ["SANITIZE=-fsanitize=address,undefined "
                 "-fno-sanitize-recover=all", "HARDENING=-fPIE",
                 "HARDENING_LD=", "CFLAGS=-O1 -g"],
    "musl": ["MUSL=1"],
    "stock": [f"MBEDTLS={STOCK}", "ALLOW_OLD_MBEDTLS=1"],
    "openwrt": without_ours("mbedtls-openwrt"),
    "static": ["STATIC=1"],
    "musl-shared": without_ours("mbedtls-musl", *MUSL),
    "poll": ["POLLER=poll"],
    "clang": ["CC=clang"],
    "accel": ["ACCEL=aws-lc"],
    "pair": [],
    "valgrind": [],
}
# For tests that do not choose a mode themselves.
ARGUMENTS = {"clang": "workers=4", "static": "mode=fork", "accel": "workers=2",
             "openwrt": "mode=fork"}
VALGRIND = "valgrind -q --error-exitcode=99 --leak-check=full " \
    "--show-leak-kinds=definite,indirect " \
    "--errors-for-leak-kinds=definite,indirect"
# Excludes tests that need ChaCha20-Poly1305, which one library lacks.
WITHOUT_CHACHA = "not thousands and not test_ciphers and not two_tickets and " \
    "not server_prefers and not only_suite_in_tls_1_3 and not change_of_suites"
FOR_VALGRIND = "small and not fork and not inetd or no_backend or " \
    "second_backend or command_cat or inetd_on"

SECONDS = 2400  # for all variants
PLACES = threading.Semaphore(3)  # they wait more than they compute

# No variants within a variant.
pytestmark = [
    pytest.mark.more,
    pytest.mark.skipif("TUNNEL_VARIANT" in os.environ or bool(UNDER),
                       reason="runs inside a variant"),
    pytest.mark.seconds(SECONDS),
]


def scenarios(variant):
    """Build the variant, and run pytest against it."""
    with PLACES:
        out = f"build/{variant}"
        run("make", "-s", "-C", TOP, f"O={out}", f"TUNNEL={out}/tunnel",
            *VARIANTS[variant], timeout=480)
        environment = {**os.environ, "TUNNEL_VARIANT": variant,
                       "TUNNEL": os.path.join(TOP, out, "tunnel"),
                       "TUNNEL_MB": "20", "TUNNEL_SLOW": "2",
                       "TUNNEL_ARGS": ARGUMENTS.get(variant, "")}
        arguments = ["-k", "not thousands"]
        if variant == "pair":
            environment["TUNNEL_PAIR"] = "yes"
        if variant == "sanitize":
            environment["TUNNEL_SLOW"] = "5"
        if variant == "musl-shared":
            arguments = ["-k", WITHOUT_CHACHA]
        if variant == "valgrind":
            environment.update(TUNNEL_SLOW="6", TUNNEL_UNDER=VALGRIND)
            arguments = ["-k", FOR_VALGRIND]
        p = subprocess.run(
            [sys.executable, "-B", "-m", "pytest", "-q", "--tb=short",
             "-p", "no:cacheprovider", *arguments,
             *files_of(SCENARIOS[variant])],
            cwd=TOP, env=environment, stdout=subprocess.PIPE, text=True,
            stderr=subprocess.STDOUT, timeout=SECONDS)
        assert p.returncode == 0, p.stdout[-20000:]
        return p.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def runs(request):
    """All selected variants, started at once."""
    wanted = [item.callspec.params["variant"] for item in request.session.items
              if item.module is request.module]
    return {variant: Task(scenarios, variant) for variant in wanted}


@pytest.mark.parametrize("variant", VARIANTS)
def test_variant(runs, variant, capsys):
    if variant in ("clang", "valgrind") and not shutil.which(variant):
        pytest.skip(f"{variant} is not installed")
    if variant == "accel" and why_no_accel():
        pytest.skip(why_no_accel())
    for word in VARIANTS[variant]:
        where = word.removeprefix("MBEDTLS=")
        if where != word and not os.path.isdir(where):
            pytest.skip(f"no mbed TLS in {where}")
    told = runs[variant].result(SECONDS)
    with capsys.disabled():
        print(f"\n{variant}: {told}")
