"""AWS-LC as the crypto of mbed TLS (make ACCEL=aws-lc): mbed TLS's own test
suites for PSA and hashes, with vectors of NIST and the RFCs, and a comparison
with OpenSSL. The tunnel built with it is a variant in test_variants.py.
"""

import json
import os
import re
import sys

import pytest

import support
from support import TOP, run

OUT = os.path.join("build", "accel")
SOURCE = os.path.join(TOP, "build", "mbedtls-source")
FRAMEWORK = os.path.join(SOURCE, "framework", "tests")
DRIVER = os.path.join(TOP, "mbedtls", "aws-lc", "awslc_driver.json")

pytestmark = [
    pytest.mark.more,
    pytest.mark.skipif(bool(support.why_no_accel()),
                       reason=str(support.why_no_accel())),
    pytest.mark.skipif("TUNNEL_VARIANT" in os.environ or bool(support.UNDER),
                       reason="makes its own build"),
    pytest.mark.seconds(300),
]


def make(*words):
    return run("make", "-s", "-C", TOP, "ACCEL=aws-lc", f"O={OUT}",
               f"TUNNEL={OUT}/tunnel", *words, timeout=300).decode()


@pytest.fixture(scope="module")
def libraries():
    """The libraries with which the tunnel is linked: mbed TLS, and AWS-LC."""
    make(f"{OUT}/tunnel")
    return make("libraries").split()


def test_against_openssl(libraries):
    make(f"{OUT}/test_accel")
    print(run(os.path.join(TOP, OUT, "test_accel"), timeout=120).decode())


def test_each_entry_point_is_used(libraries):
    """No other test would detect an entry point omitted by mbed TLS's
    generator.
    """
    with open(DRIVER) as f:
        driver = json.load(f)
    names = {f"awslc_transparent_{name}" for capability in
             driver["capabilities"] for name in capability["entry_points"]}
    told = run("nm", "--undefined-only", libraries[-2], cwd=TOP).decode()
    assert names == set(re.findall(r"U (awslc_transparent_\w+)", told))


def test_notices(tmp_path):
    """AWS-LC's licences are installed with the program."""
    make(f"DESTDIR={tmp_path}", "install")
    found = tmp_path / "usr/local/share/doc/tunnel/LICENSE.aws-lc"
    assert "Apache License" in found.read_text()
    make(f"DESTDIR={tmp_path}", "uninstall")
    assert not found.exists()


@pytest.mark.parametrize("name,least", [("psa_crypto", 1000),
                                        ("psa_crypto_hash", 50), ("shax", 30)])
def test_mbedtls_suite(libraries, tmp_path, name, least):
    """mbed TLS's PSA tests in our configuration, which uses the driver.
    Excluded: tests of RSA key sizes that depend on the configuration.
    """
    tests = os.path.join(SOURCE, "tests", "suites")
    suite = f"test_suite_{name}"
    with open(os.path.join(tests, suite + ".data")) as f:
        cases = [case for case in f.read().split("\n\n")
                 if "maximum size exceeded" not in case and
                 "-bit (not supported)" not in case]
    (tmp_path / (suite + ".data")).write_text("\n\n".join(cases))
    run(sys.executable, "-B", os.path.join(
        SOURCE, "framework", "scripts", "generate_test_code.py"),
        "-f", os.path.join(tests, suite + ".function"),
        "-d", tmp_path / (suite + ".data"),
        "-t", os.path.join(tests, "main_test.function"),
        "-p", os.path.join(tests, "host_test.function"),
        "--helpers-file", os.path.join(tests, "helpers.function"),
        "-s", tests, "-o", tmp_path, timeout=60)
    helpers = ["helpers", "random", "fake_external_rng_for_test",
               "psa_crypto_helpers", "psa_exercise_key", "asn1_helpers",
               "test_memory"]
    headers = os.path.join(os.path.dirname(os.path.dirname(libraries[-2])),
                           "include")
    run("cc", "-O1", "-D_POSIX_C_SOURCE=200809L",
        *("-I" + os.path.join(TOP, directory) for directory in (
            headers, os.path.join(SOURCE, "tests", "include"),
            os.path.join(FRAMEWORK, "include"),
            os.path.join(SOURCE, "library"))),
        "-o", suite, suite + ".c",
        *(os.path.join(FRAMEWORK, "src", name + ".c") for name in helpers),
        *(os.path.join(TOP, library) for library in libraries),
        cwd=tmp_path, timeout=120)
    told = run(tmp_path / suite, cwd=tmp_path, timeout=120).decode()
    passed, skipped = map(int, re.search(
        r"PASSED \((\d+) / \d+ tests \((\d+) skipped\)\)", told).groups())
    print(told)
    assert passed - skipped > least
