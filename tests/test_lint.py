"""What compilers don't say: cppcheck and clang-tidy have nothing against it."""

import glob
import os
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest

from support import TOP, run, why_no_accel

SOURCES = [*run("make", "-s", "-C", TOP, "sources").decode().split(),
           "mbedtls/alloc.c"]
POLLER = "lib/poller.c"
ACCEL = "mbedtls/ipsec-mb/aead.c"
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
    # Off: return values of printf() and of clean-up, and _exit() in signals.
    "-cert-err33-c", "-bugprone-unused-return-value",
]


def mbedtls():
    """Our own library's headers, of whatever machine."""
    found = glob.glob(os.path.join(TOP, "build", "library", "*", "include"))
    return ["-isystem", found[0]] if found else []


def need(program):
    if not shutil.which(program):
        pytest.skip(f"{program} is not installed")


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
        '-DMBEDTLS_VERSION_STRING_FULL="mbed TLS"', *SOURCES, ACCEL, cwd=TOP,
        timeout=120).decode())


def clang_tidy(source, *flags):
    return run("clang-tidy", "--quiet", "--warnings-as-errors=*",
               "--checks=-*," + ",".join(CHECKS), source, "--", "-std=c11",
               *DEFINES, *flags, *mbedtls(), cwd=TOP, timeout=900).decode()


@pytest.mark.seconds(900)
def test_clang_tidy():
    need("clang-tidy")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        jobs = [pool.submit(clang_tidy, source) for source in SOURCES]
        jobs.append(pool.submit(clang_tidy, POLLER, "-DPOLLER_POLL"))
        if not why_no_accel():
            jobs.append(pool.submit(
                clang_tidy, ACCEL, "-DMBEDTLS_GCM_ALT",
                "-DMBEDTLS_CHACHAPOLY_ALT", "-Imbedtls/ipsec-mb"))
        for job in jobs:
            print(job.result())
