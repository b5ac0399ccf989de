"""SOPS' YAML files by other code than ours: PyYAML, PyCA's AES-GCM, pyrage. Written from the format as getsops/sops has it, for the tests
to hold our files against."""

import base64
import decimal
import hashlib
import os
import re

import pyrage
import yaml
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

ENC = re.compile(r"ENC\[AES256_GCM,data:([^,]+),iv:([^,]+),tag:([^,]+),type:([a-z]+)\]")


class Comment(str):
    """Stands as a key without a value."""


def shown(value) -> str:
    """As SOPS encrypts a value and counts it into the MAC."""
    if isinstance(value, bool):
        return "True" if value else "False"
    if isinstance(value, float):
        return format(decimal.Decimal(repr(value)), "f").removesuffix(".0")
    return str(value)


def type_of(value) -> str:
    return {bool: "bool", int: "int", float: "float", str: "str", Comment: "comment"}[type(value)]


def decrypted(text: str, key: bytes, path: str):
    match = ENC.fullmatch(text)
    assert match, text
    data, nonce, tag = (base64.b64decode(part, validate=True) for part in match.groups()[:3])
    plain = AESGCM(key).decrypt(nonce, data + tag, path.encode()).decode()
    kind = match.group(4)
    if kind == "int":
        return int(plain)
    if kind == "float":
        return float(plain)
    if kind == "bool":
        return {"True": True, "False": False}[plain]
    return Comment(plain) if kind == "comment" else plain


def encrypted(value, key: bytes, path: str, nonce_length: int = 32) -> str:
    nonce = os.urandom(nonce_length)
    sealed = AESGCM(key).encrypt(nonce, shown(value).encode(), path.encode())
    data, iv, tag = (base64.b64encode(part).decode() for part in (sealed[:-16], nonce, sealed[-16:]))
    return f"ENC[AES256_GCM,data:{data},iv:{iv},tag:{tag},type:{type_of(value)}]"


def walk(node, path, leaf):
    """The same tree with each value replaced; positions in lists aren't part of a path."""
    if isinstance(node, dict):
        return {name: walk(value, [*path, name], leaf) for name, value in node.items()}
    if isinstance(node, list):
        return [walk(value, path, leaf) for value in node]
    return None if node is None else leaf(node, path)


def code(tree, is_encrypted, only_encrypted: bool) -> str:
    digest = hashlib.sha512()
    if only_encrypted:
        digest.update(hashlib.sha256(b"sops").digest())

    def add(value, path):
        if is_encrypted(path) or not only_encrypted:
            digest.update(shown(value).encode())

    walk(tree, [], add)
    return digest.hexdigest().upper()


def rule(metadata):
    suffix = metadata.get("unencrypted_suffix") or "_unencrypted"
    if pattern := metadata.get("encrypted_regex"):
        return lambda path: any(re.search(pattern, name) for name in path)
    return lambda path: not any(name.endswith(suffix) for name in path)


def data_key(metadata, identity) -> bytes:
    for entry in metadata["age"]:
        try:
            return pyrage.decrypt(dearmored(entry["enc"]), [identity])
        except pyrage.DecryptError:
            continue
    raise AssertionError(f"not for this identity: {[entry['recipient'] for entry in metadata['age']]}")


def dearmored(text: str) -> bytes:
    lines = text.strip().splitlines()
    assert lines[0] == "-----BEGIN AGE ENCRYPTED FILE-----" and lines[-1] == "-----END AGE ENCRYPTED FILE-----"
    return base64.b64decode("".join(lines[1:-1]), validate=True)


def armored(data: bytes) -> str:
    body = base64.b64encode(data).decode()
    lines = [body[start : start + 64] for start in range(0, len(body), 64)]
    return "\n".join(["-----BEGIN AGE ENCRYPTED FILE-----", *lines, "-----END AGE ENCRYPTED FILE-----", ""])


def load(text: str, identity):
    """The tree of a file in the clear, after its MAC was checked, and its comments at the top in the clear."""
    tree = yaml.safe_load(text)
    metadata = tree.pop("sops")
    key = data_key(metadata, identity)
    assert len(key) == 32
    encrypts = rule(metadata)

    def leaf(value, path):
        if not encrypts(path) or value == "":
            return value
        return decrypted(value, key, ":".join(path) + ":")

    clear = walk(tree, [], leaf)
    stored = decrypted(metadata["mac"], key, metadata["lastmodified"])
    assert stored == code(clear, encrypts, bool(metadata.get("mac_only_encrypted"))), "the MAC doesn't fit"
    comments = [
        decrypted(line[1:], key, ":") for line in text.splitlines() if line.startswith("#ENC[")
    ]
    return clear, comments


def dump(tree, recipients, *, time="2026-11-20T08:00:00Z", wrap=None, comments=(), nonce_length=32, **rules) -> str:
    """A file as SOPS writes it. `recipients`: texts with pyrage's recipients; `wrap`: encrypts otherwise than pyrage."""
    key = os.urandom(32)
    metadata = {
        "age": [
            {"recipient": name, "enc": wrap(name, key) if wrap else armored(pyrage.encrypt(key, [recipient]))}
            for name, recipient in recipients
        ],
        "lastmodified": time,
        **(rules or {"unencrypted_suffix": "_unencrypted"}),
        "version": "3.9.4",
    }
    encrypts = rule(metadata)
    metadata["mac"] = encrypted(
        code(tree, encrypts, bool(metadata.get("mac_only_encrypted"))), key, time, nonce_length)

    def leaf(value, path):
        if not encrypts(path) or value == "":
            return value
        return encrypted(value, key, ":".join(path) + ":", nonce_length)

    head = "".join(f"#{encrypted(Comment(comment), key, ':', nonce_length)}\n" for comment in comments)
    return head + yaml.dump(
        {**walk(tree, [], leaf), "sops": metadata}, sort_keys=False, allow_unicode=True, width=1 << 20, indent=4)
