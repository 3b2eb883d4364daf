"""Where libipsec-mb does the ciphers (make ACCEL=ipsec-mb): mbed TLS's own
tests of them, with the vectors of NIST and of the RFCs, and ours, against
OpenSSL.  What it makes of the tunnel is one of test_variants.py's variants.
"""

import os
import re
import sys

import pytest

import support
from support import TOP, run

OUT = os.path.join("build", "accel")
LIBRARY = os.path.join("build", "library", "x86_64-linux-gnu-ipsec-mb")
SOURCE = os.path.join(TOP, "build", "mbedtls-source")
FRAMEWORK = os.path.join(SOURCE, "framework", "tests")
SUITES = ["gcm.misc", "gcm.aes128_de", "gcm.aes128_en", "gcm.aes192_de",
          "gcm.aes192_en", "gcm.aes256_de", "gcm.aes256_en", "chachapoly",
          "cipher.gcm", "cipher.chachapoly"]

pytestmark = [
    pytest.mark.more,
    pytest.mark.skipif(bool(support.why_no_accel()),
                       reason=str(support.why_no_accel())),
    pytest.mark.skipif("TUNNEL_VARIANT" in os.environ or bool(support.UNDER),
                       reason="has a build of its own"),
    pytest.mark.seconds(240),
]


def make(target):
    run("make", "-s", "-C", TOP, "ACCEL=ipsec-mb", f"O={OUT}",
        f"TUNNEL={OUT}/tunnel", target, timeout=240)


def test_against_openssl():
    make(f"{OUT}/test_accel")
    print(run(os.path.join(TOP, OUT, "test_accel"), timeout=120).decode())


@pytest.fixture(scope="module")
def helpers(tmp_path_factory):
    """What mbed TLS's tests share, and how to compile them."""
    make(f"{OUT}/tunnel")
    out = tmp_path_factory.mktemp("suites")
    includes = [os.path.join(TOP, LIBRARY, "include"),
                os.path.join(SOURCE, "tests", "include"),
                os.path.join(FRAMEWORK, "include"),
                os.path.join(SOURCE, "library")]
    command = ["cc", "-O1", "-D_POSIX_C_SOURCE=200809L",
               *("-I" + directory for directory in includes)]
    names = ["helpers", "random", "fake_external_rng_for_test",
             "psa_crypto_helpers", "test_memory"]
    run(*command, "-c", *(os.path.join(FRAMEWORK, "src", name + ".c")
                          for name in names), cwd=out, timeout=60)
    return out, [*command, *(f"{name}.o" for name in names)]


def copy(directory, name, out):
    """Without the test that looks into what libipsec-mb stands in for."""
    with open(os.path.join(directory, name)) as f:
        text = re.sub(r"(?s)/\* BEGIN_CASE \*/\nvoid chachapoly_update_too_long"
                      r".*?/\* END_CASE \*/\n|[^\n]*\n"
                      r"chachapoly_update_too_long:\n", "", f.read())
    path = os.path.join(out, name)
    with open(path, "w") as f:
        f.write(text)
    return path


@pytest.mark.parametrize("suite", SUITES)
def test_mbedtls_suite(helpers, suite):
    out, command = helpers
    tests = os.path.join(SOURCE, "tests", "suites")
    run(sys.executable, "-B", os.path.join(
        SOURCE, "framework", "scripts", "generate_test_code.py"),
        "-f", copy(tests, f"test_suite_{suite.split('.')[0]}.function", out),
        "-d", copy(tests, f"test_suite_{suite}.data", out),
        "-t", os.path.join(tests, "main_test.function"),
        "-p", os.path.join(tests, "host_test.function"),
        "--helpers-file", os.path.join(tests, "helpers.function"),
        "-s", tests, "-o", out, timeout=60)
    run(*command, f"test_suite_{suite}.c", "-o", suite,
        os.path.join(TOP, LIBRARY, "lib", "libmbedcrypto.a"), "-lIPSec_MB",
        cwd=out, timeout=60)
    told = run(os.path.join(out, suite), cwd=out, timeout=60).decode()
    passed, skipped = map(int, re.search(
        r"PASSED \((\d+) / \d+ tests \((\d+) skipped\)\)", told).groups())
    print(told)
    assert passed > skipped
    if suite.startswith(("gcm.aes", "chachapoly")):
        assert re.search(r"Selftest \.+ PASS", told)
