#!/usr/bin/env python3
"""Where tenants are, computed without any code of the operator: a reading of docs/routing-table.md in Python.

slots.py VECTORS            checks a file of vectors: a line is a tenant as JSON, a tab, its slot
slots.py                    prints the SHA-256 of ten thousand tenants with their slots, which a test of the operator has, too
slots.py TABLE TENANTS      prints the index and the cluster of each tenant, one a line; TABLE is table.json or table.json.gz,
                            TENANTS has one tenant as JSON a line
"""

import gzip
import hashlib
import json
import sys

MASK = (1 << 64) - 1
SECRET = bytes.fromhex(
    "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671f"
    "cb79e64eccc0e578825ad07dccff7221b8084674f743248ee03590e6813a264c"
    "3c2852bb91c300cb88d0658b1b532ea371644897a20df94e3819ef46a9deacd8"
    "a8fa763fe39c343ff9dcbbc7c70b4f1d8a51e04bcdb45931c89f7ec9d9787364"
)
P32 = (0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D)
P64 = (
    0x9E3779B185EBCA87,
    0xC2B2AE3D27D4EB4F,
    0x165667B19E3779F9,
    0x85EBCA77C2B2AE63,
    0x27D4EB2F165667C5,
)


def word(data, at, size=8):
    return int.from_bytes(data[at : at + size], "little")


def fold(a, b):
    product = a * b
    return (product & MASK) ^ (product >> 64)


def avalanche(h):
    h ^= h >> 37
    h = h * 0x165667919E3779F9 & MASK
    return h ^ h >> 32


def avalanche_64(h):
    h ^= h >> 33
    h = h * P64[1] & MASK
    h ^= h >> 29
    h = h * P64[2] & MASK
    return h ^ h >> 32


def mix(data, at, secret):
    return fold(word(data, at) ^ word(SECRET, secret), word(data, at + 8) ^ word(SECRET, secret + 8))


def xxh3_64(data):
    """XXH3, 64 bits, seed 0, for up to 128 bytes: no tenant is longer."""
    size = len(data)
    if size > 128:
        raise ValueError("a tenant has at most 128 bytes")
    if size == 0:
        return avalanche_64(word(SECRET, 56) ^ word(SECRET, 64))
    if size <= 3:
        mixed = data[0] << 16 | data[size >> 1] << 24 | data[-1] | size << 8
        return avalanche_64(mixed ^ word(SECRET, 0, 4) ^ word(SECRET, 4, 4))
    if size <= 8:
        first, last = word(data, 0, 4), word(data, size - 4, 4)
        h = word(SECRET, 8) ^ word(SECRET, 16) ^ (last + (first << 32))
        h ^= (h << 49 | h >> 15) & MASK ^ (h << 24 | h >> 40) & MASK
        h = h * 0x9FB21C651E98DF25 & MASK
        h ^= (h >> 35) + size
        h = h * 0x9FB21C651E98DF25 & MASK
        return h ^ h >> 28
    if size <= 16:
        low = word(data, 0) ^ word(SECRET, 24) ^ word(SECRET, 32)
        high = word(data, size - 8) ^ word(SECRET, 40) ^ word(SECRET, 48)
        swapped = int.from_bytes(low.to_bytes(8, "little"), "big")
        return avalanche(size + swapped + high + fold(low, high) & MASK)
    h = size * P64[0] & MASK
    for pair in range((size - 1) // 32 + 1):
        h += mix(data, 16 * pair, 32 * pair) + mix(data, size - 16 * (pair + 1), 32 * pair + 16)
    return avalanche(h & MASK)


def slot_of(tenant):
    return xxh3_64(tenant.encode()) >> 50


def lookup(table, tenant):
    """The destination of a tenant: its override, else the range that its slot is in."""
    if tenant in table.get("overrides", {}):
        return table["overrides"][tenant]
    slot = slot_of(tenant)
    ranges = [entry for entry in table.get("slots", []) if entry["from"] <= slot]
    return ranges[-1] if ranges else {}


def vectors(path):
    with open(path, encoding="utf-8") as lines:
        pairs = [line.rstrip("\n").split("\t") for line in lines if not line.startswith("#")]
    wrong = [tenant for tenant, slot in pairs if slot_of(json.loads(tenant)) != int(slot)]
    if wrong:
        sys.exit(f"wrong slots for {', '.join(wrong)}")
    print(f"{len(pairs)} vectors hold")


def places(table_path, tenants_path):
    with open(table_path, "rb") as file:
        data = file.read()
    table = json.loads(gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data)
    with open(tenants_path, encoding="utf-8") as tenants:
        for line in tenants:
            at = lookup(table, json.loads(line)).get("read")
            if at is None:
                print("nowhere")
                continue
            index = table["indices"][at]
            print(index["name"], table["clusters"][index["cluster"]]["name"])


def ten_thousand():
    tenants = (str(81384788765712384 + n * 7919311) for n in range(10_000))
    lines = "".join(f"{tenant}\t{slot_of(tenant)}\n" for tenant in tenants)
    print(hashlib.sha256(lines.encode()).hexdigest())


if __name__ == "__main__":
    if len(sys.argv) == 1:
        ten_thousand()
    elif len(sys.argv) == 2:
        vectors(sys.argv[1])
    elif len(sys.argv) == 3:
        places(sys.argv[1], sys.argv[2])
    else:
        sys.exit(__doc__)
