"""What compilers don't say: cppcheck and clang-tidy have nothing against it."""

import glob
import os
import re

import pytest

from support import TOP, need, run, why_no_accel

SOURCES = [*run("make", "-s", "-C", TOP, "sources").decode().split(),
           "mbedtls/alloc.c"]
POLLER = "lib/poller.c"
ACCEL = sorted(glob.glob("mbedtls/aws-lc/*.c", root_dir=TOP))
WITH_ACCEL = "-DTUNNEL_AWS_LC -DMBEDTLS_USE_PSA_CRYPTO -Imbedtls/aws-lc " \
    "-isystem build/aws-lc-source/aws-lc/include"
DEFINES = ["-D_GNU_SOURCE", '-DVERSION="0"', "-I.", "-Ilib"]
CHECKS = [
    "bugprone-*", "cert-*", "clang-analyzer-*", "misc-redundant-expression",
    "performance-*",
    # Off: 24 * 60 * 60 fits an int, and (void *)(uintptr_t) casts a const away.
    "-bugprone-implicit-widening-of-multiplication-result",
    "-performance-no-int-to-ptr",
    # Off: arrays of pointers are meant to be that.
    "-bugprone-sizeof-expression",
    # Off: free() takes any pointer there is.
    "-bugprone-multi-level-implicit-pointer-conversion",
    # Off: two parameters of one type, and numbers in a condition's place.
    "-bugprone-easily-swappable-parameters",
    "-bugprone-narrowing-conversions",
    # Off: an assignment in a condition is this code's way to check.
    "-bugprone-assignment-in-if-condition",
    # Off: memcpy_s() and its kind are nowhere to be had.
    "-clang-analyzer-security.insecureAPI.DeprecatedOrUnsafeBufferHandling",
    # Off: a call that succeeds leaves errno as it was, on Linux.
    "-clang-analyzer-unix.Errno",
    # Off: what -1 for a descriptor gives is EBADF, and is meant to be.
    "-clang-analyzer-unix.StdCLibraryFunctions",
    # Off: an enum is a number with names, and may be had from one.
    "-clang-analyzer-optin.core.EnumCastOutOfRange", "-cert-int09-c",
    # Off: what a switch has no case for is left alone.
    "-bugprone-switch-missing-default-case",
    # Off: void * on the way from one sockaddr to another says it is aligned.
    "-bugprone-casting-through-void",
    # Off: return values of printf() and of clean-up, and _exit() in signals.
    "-cert-err33-c", "-bugprone-unused-return-value",
]


def mbedtls():
    """Our own library's headers, of whatever machine."""
    found = glob.glob(os.path.join(TOP, "build", "library", "*", "include"))
    return ["-isystem", found[0]] if found else []


def oids():
    """What mbed TLS has for strings within strings, which cppcheck has to
    know to be that.
    """
    found = set()
    for source in [*SOURCES, *glob.glob("lib/*.h", root_dir=TOP)]:
        with open(os.path.join(TOP, source)) as f:
            found |= set(re.findall(r"\bMBEDTLS_OID_\w+\b(?!\()", f.read()))
    return sorted(found)


def needed():
    """What mbed TLS has to have, lest there is an #error."""
    with open(os.path.join(TOP, "tls.c")) as f:
        text = f.read()
    return {"PSA_WANT_ALG_CHACHA20_POLY1305", "PSA_WANT_KEY_TYPE_CHACHA20",
            *re.findall(r"!defined\((MBEDTLS_\w+)\)", text),
            *re.findall(r"^#ifndef (MBEDTLS_\w+)$", text, re.M)}


@pytest.mark.seconds(120)
def test_cppcheck():
    need("cppcheck")
    print(run(
        "cppcheck", "--quiet", "--error-exitcode=1", "--std=c11",
        "--enable=warning,performance,portability", "--inline-suppr",
        "--library=posix", "--suppress=missingIncludeSystem",
        "--suppress=normalCheckLevelMaxBranches", "--template=gcc", "-j2",
        # mmap(2) wants -1 with MAP_ANONYMOUS; and there is one thread.
        "--suppress=invalidFunctionArg",
        "--suppress=getpwuidCalled", "--suppress=getpwnamCalled",
        "--suppress=getgrnamCalled", "--suppress=readdirCalled",
        "--suppress=getservbynameCalled", *DEFINES,
        "-DMBEDTLS_VERSION_NUMBER=0x03060700",
        '-DMBEDTLS_VERSION_STRING_FULL="mbed TLS"',
        *("-D" + name for name in needed()),
        *(f'-D{name}="x"' for name in oids()), *SOURCES, *ACCEL, cwd=TOP,
        timeout=120).decode())


@pytest.mark.seconds(600)
@pytest.mark.parametrize("source,flags", [
    *((source, "") for source in SOURCES), (POLLER, "-DPOLLER_POLL"),
    *((source, WITH_ACCEL) for source in [*ACCEL, "lib/tls_key.c", "tls.c"]),
])
def test_clang_tidy(source, flags):
    need("clang-tidy")
    if flags == WITH_ACCEL and why_no_accel():
        pytest.skip(why_no_accel())
    print(run("clang-tidy", "--quiet", "--warnings-as-errors=*",
              "--checks=-*," + ",".join(CHECKS), source, "--", "-std=c11",
              *DEFINES, *flags.split(), *mbedtls(), cwd=TOP,
              timeout=600).decode())
