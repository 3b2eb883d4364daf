"""The same scenarios against every way to build it, so that none rots; and
some of them under valgrind.
"""

import os
import shutil
import subprocess
import sys
import threading

import pytest

from support import TOP, UNDER, Task, files_of, run, why_no_accel

SCENARIOS = ["end_of_stream", "early_answers", "transfer", "tls_clients", "redis",
             "apache", "endpoints", "negotiation", "errors", "reports",
             "daemon", "log", "timeouts", "hostile_peers"]
PROCESSES = ["workers", "reload", "supervisors", "privileges", "crowds",
             "files", "inherited"]
TRUST = ["client_certs", "chain_verdicts", "client_sessions",
         "session_binding", "peer_rules", "trust_settings",
         "server_names", "cert_warnings", "resumption", "session_cache",
         "ticket_keys", "tickets_hostile", "proxy_protocol", "proxy_tlvs",
         "accept_proxy", "client_cert_programs", "hostile_certs", "early_data",
         "alerts"]

# Which of these, where a variant may make a difference to them.
MORE = {"sanitize": PROCESSES + TRUST, "poll": ["workers", "crowds", "accept_proxy"],
        "clang": ["reload", "client_sessions"],
        "static": ["privileges", "resumption", "hardening"],
        "stock": ["workers", "random", "hardening"] + TRUST,
        "musl": ["workers", "privileges", "files", "inherited", "random",
                 "hardening", "library"] + TRUST,
        "accel": ["workers", "reload", "privileges", "resumption", "library"]}

STOCK = os.path.join(TOP, "build", "mbedtls")

# What to give to make.
VARIANTS = {
    "sanitize": ["SANITIZE=-fsanitize=address,undefined "
                 "-fno-sanitize-recover=all", "HARDENING=-fPIE",
                 "HARDENING_LD=", "CFLAGS=-O1 -g"],
    "poll": ["POLLER=poll"],
    "clang": ["CC=clang"],
    "static": ["STATIC=1"],
    "stock": [f"MBEDTLS={STOCK}", "ALLOW_OLD_MBEDTLS=1"],
    "musl": ["MUSL=1"],
    "accel": ["ACCEL=ipsec-mb"],
    "valgrind": [],
}
# How those of a test run that does not choose.
ARGUMENTS = {"clang": "workers=4", "static": "mode=fork", "accel": "workers=2"}
VALGRIND = "valgrind -q --error-exitcode=99 --leak-check=full " \
    "--show-leak-kinds=definite,indirect " \
    "--errors-for-leak-kinds=definite,indirect"
FOR_VALGRIND = "small or no_backend or second_backend or command_cat or inetd_on"

SECONDS = 2400  # for all of them
PLACES = threading.Semaphore(2)  # they wait more than they work

# No variant of a variant.
pytestmark = [
    pytest.mark.more,
    pytest.mark.skipif("TUNNEL_VARIANT" in os.environ or bool(UNDER),
                       reason="runs inside of a variant"),
    pytest.mark.seconds(SECONDS),
]


def scenarios(variant):
    """Build it, and run pytest anew against it."""
    with PLACES:
        out = f"build/{variant}"
        run("make", "-s", "-C", TOP, f"O={out}", f"TUNNEL={out}/tunnel",
            *VARIANTS[variant], timeout=240)
        environment = {**os.environ, "TUNNEL_VARIANT": variant,
                       "TUNNEL": os.path.join(TOP, out, "tunnel"),
                       "TUNNEL_MB": "20", "TUNNEL_SLOW": "2",
                       "TUNNEL_ARGS": ARGUMENTS.get(variant, "")}
        names = SCENARIOS + MORE.get(variant, [])
        arguments = ["-k", "not thousands"]
        if variant == "sanitize":
            environment["TUNNEL_SLOW"] = "5"
        if variant == "valgrind":
            environment.update(TUNNEL_SLOW="6", TUNNEL_UNDER=VALGRIND)
            names = ["end_of_stream", "endpoints"]
            arguments = ["-k", FOR_VALGRIND]
        p = subprocess.run(
            [sys.executable, "-B", "-m", "pytest", "-q", "--tb=short",
             "-p", "no:cacheprovider", *arguments,
             *files_of(names)],
            cwd=TOP, env=environment, stdout=subprocess.PIPE, text=True,
            stderr=subprocess.STDOUT, timeout=SECONDS)
        assert p.returncode == 0, p.stdout[-20000:]


@pytest.fixture(scope="module")
def runs(request):
    """All that are wanted, begun at once."""
    wanted = [item.callspec.params["variant"] for item in request.session.items
              if item.module is request.module]
    return {variant: Task(scenarios, variant) for variant in wanted}


@pytest.mark.parametrize("variant", VARIANTS)
def test_variant(runs, variant):
    if variant in ("clang", "valgrind") and not shutil.which(variant):
        pytest.skip(f"{variant} is not installed")
    if variant == "accel" and why_no_accel():
        pytest.skip(why_no_accel())
    if variant == "stock" and not os.path.isdir(STOCK):
        pytest.skip("there is no mbed TLS as it comes in build/mbedtls")
    runs[variant].result(SECONDS)
