#!/usr/bin/env python3
"""Make mbed TLS 3.6 call all entry points in a driver's description.

    dispatch.py TEMPLATE

mbed TLS's generator of driver wrappers does so only for a few of them.  For the
others its template contains calls written by hand, among them those of mbed
TLS's test driver.  Before each of these that is for a transparent driver and
needs no context, insert a loop that generates the same call for every driver
with the entry point.
"""

import re
import sys

LOOP = """\
{%% for driver in drivers if driver.type == "transparent" -%%}
{%% for capability in driver.capabilities \
if "%s" in capability.entry_points -%%}
%s{%% endfor %%}
{%% endfor -%%}
"""


def main(path):
    with open(path) as f:
        text = f.read()
    blocks = re.compile(r"#if defined\(PSA_CRYPTO_DRIVER_TEST\)\n"
                        r"((?:(?! *#).*\n)*?"
                        r".*\bmbedtls_test_transparent_(\w+) *\((?:(?! *#).*\n)*)"
                        r"#endif.*\n")

    def with_loop(block):
        call, entry_point = block.groups()
        if "operation" in call:
            return block[0]
        call = re.sub(r"(?s)\n[^\n]*\bmbedtls_test_opaque_.*", "\n", call)
        return LOOP % (entry_point, call.replace(
            "mbedtls_test_transparent_", "{{driver.prefix}}_{{driver.type}}_"
            )) + block[0]

    text, n = blocks.subn(with_loop, text)
    if n == 0:
        sys.exit(f"{path}: no call of the test driver's is in it")
    with open(path, "w") as f:
        f.write(text)


main(*sys.argv[1:])
