"""X25519MLKEM768 after its standards (FIPS 203 and RFC 7748), slow, as a
reference for others.
"""

import hashlib
import os

Q, ROWS = 3329, 3  # ML-KEM-768
EK, DK, CT = 1184, 2400, 1088  # sizes in bytes
BITS = [int(f"{i:07b}"[::-1], 2) for i in range(128)]
ZETAS = [pow(17, bits, Q) for bits in BITS]
GAMMAS = [pow(17, 2 * bits + 1, Q) for bits in BITS]


def ntt(f):
    """Algorithm 9."""
    f, i, size = list(f), 1, 128
    while size >= 2:
        for start in range(0, 256, 2 * size):
            for j in range(start, start + size):
                t = ZETAS[i] * f[j + size]
                f[j], f[j + size] = (f[j] + t) % Q, (f[j] - t) % Q
            i += 1
        size //= 2
    return f


def inverse(f):
    """Algorithm 10."""
    f, i, size = list(f), 127, 2
    while size <= 128:
        for start in range(0, 256, 2 * size):
            for j in range(start, start + size):
                t = f[j]
                f[j] = (t + f[j + size]) % Q
                f[j + size] = ZETAS[i] * (f[j + size] - t) % Q
            i -= 1
        size *= 2
    return [x * 3303 % Q for x in f]


def add(f, g):
    return [(x + y) % Q for x, y in zip(f, g)]


def product(fs, gs):
    """The dot product of two vectors, by algorithm 11."""
    total = [0] * 256
    for f, g in zip(fs, gs):
        for i, gamma in enumerate(GAMMAS):
            (a, b), (c, d) = f[2 * i:2 * i + 2], g[2 * i:2 * i + 2]
            total[2 * i] += a * c + b * d * gamma
            total[2 * i + 1] += a * d + b * c
    return [x % Q for x in total]


def uniform(seed):
    """Algorithm 7."""
    data, found = hashlib.shake_128(seed).digest(1500), []
    for a, b, c in zip(data[::3], data[1::3], data[2::3]):
        found += [x for x in (a | (b & 15) << 8, b >> 4 | c << 4) if x < Q]
    assert len(found) >= 256
    return found[:256]


def noise(seed, n):
    """Algorithm 8, with PRF."""
    data = int.from_bytes(hashlib.shake_256(seed + bytes([n])).digest(128),
                          "little")
    return [((data >> 4 * i & 1) + (data >> 4 * i + 1 & 1) -
             (data >> 4 * i + 2 & 1) - (data >> 4 * i + 3 & 1)) % Q
            for i in range(256)]


def encode(bits, f):
    return sum(x << bits * i for i, x in enumerate(f)).to_bytes(
        32 * bits, "little")


def decode(bits, data):
    number = int.from_bytes(data, "little")
    return [number >> bits * i & (1 << bits) - 1 for i in range(256)]


def compress(bits, f):
    return [((x << bits) + Q // 2) // Q % (1 << bits) for x in f]


def decompress(bits, f):
    return [(x * Q + (1 << bits - 1)) >> bits for x in f]


def parts(data, size):
    return [data[i:i + size] for i in range(0, len(data), size)]


def matrix(rho):
    return [[uniform(rho + bytes([j, i])) for j in range(ROWS)]
            for i in range(ROWS)]


def generate(seed=None):
    """Algorithm 16: an encapsulation key and a decapsulation key."""
    seed = seed or os.urandom(64)
    both = hashlib.sha3_512(seed[:32] + bytes([ROWS])).digest()
    rho, sigma = both[:32], both[32:]
    s = [ntt(noise(sigma, n)) for n in range(ROWS)]
    e = [ntt(noise(sigma, n + ROWS)) for n in range(ROWS)]
    t = [add(product(row, s), x) for row, x in zip(matrix(rho), e)]
    ek = b"".join(encode(12, x) for x in t) + rho
    return ek, (b"".join(encode(12, x) for x in s) + ek +
                hashlib.sha3_256(ek).digest() + seed[32:])


def encrypt(ek, m, coins):
    """Algorithm 14."""
    t = [decode(12, x) for x in parts(ek[:-32], 384)]
    y = [ntt(noise(coins, n)) for n in range(ROWS)]
    u = [add(inverse(product(column, y)), noise(coins, ROWS + n))
         for n, column in enumerate(zip(*matrix(ek[-32:])))]
    v = add(add(inverse(product(t, y)), noise(coins, 2 * ROWS)),
            decompress(1, decode(1, m)))
    return b"".join(encode(10, compress(10, x)) for x in u) + encode(
        4, compress(4, v))


def encapsulate(ek, m=None):
    """Algorithm 17: a ciphertext and the secret."""
    m = m or os.urandom(32)
    both = hashlib.sha3_512(m + hashlib.sha3_256(ek).digest()).digest()
    return encrypt(ek, m, both[32:]), both[:32]


def decapsulate(dk, ct):
    """Algorithm 18: the secret, or on a bad ciphertext one that matches no
    peer's.
    """
    s = [decode(12, x) for x in parts(dk[:1152], 384)]
    ek, digest, z = dk[1152:-64], dk[-64:-32], dk[-32:]
    u = [ntt(decompress(10, decode(10, x))) for x in parts(ct[:960], 320)]
    v = decompress(4, decode(4, ct[960:]))
    w = [(x - y) % Q for x, y in zip(v, inverse(product(s, u)))]
    m = encode(1, compress(1, w))
    both = hashlib.sha3_512(m + digest).digest()
    if encrypt(ek, m, both[32:]) == ct:
        return both[:32]
    return hashlib.shake_256(z + ct).digest(32)


def x25519(k, u=bytes([9] + 31 * [0])):
    """RFC 7748, section 5."""
    p = (1 << 255) - 19
    k = int.from_bytes(k, "little") & ~7 & ~(1 << 255) | 1 << 254
    x1 = int.from_bytes(u, "little") & (1 << 255) - 1
    x2, z2, x3, z3 = 1, 0, x1, 1
    for t in reversed(range(255)):
        bit = k >> t & 1
        if bit:
            x2, z2, x3, z3 = x3, z3, x2, z2
        a, b = x2 + z2, x2 - z2
        aa, bb = a * a % p, b * b % p
        da, cb = (x3 - z3) * a % p, (x3 + z3) * b % p
        x3, z3 = (da + cb) ** 2 % p, x1 * (da - cb) ** 2 % p
        x2, z2 = aa * bb % p, (aa - bb) * (aa + 121665 * (aa - bb)) % p
        if bit:
            x2, z2, x3, z3 = x3, z3, x2, z2
    return (x2 * pow(z2, p - 2, p) % p).to_bytes(32, "little")
