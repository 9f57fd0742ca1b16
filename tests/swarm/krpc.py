"""As much of BitTorrent's DHT protocol (BEP 5) as it takes to ask a node something, independent of the crate's own."""

import os
import socket
import struct


def encode(value):
    if isinstance(value, int):
        return b"i%de" % value
    if isinstance(value, bytes):
        return b"%d:%s" % (len(value), value)
    if isinstance(value, list):
        return b"l" + b"".join(map(encode, value)) + b"e"
    return b"d" + b"".join(encode(key) + encode(value[key]) for key in sorted(value)) + b"e"


def decode(data):
    value, end = _value(data, 0)
    if end != len(data):
        raise ValueError("something behind the end")
    return value


def _value(data, at):
    kind = data[at : at + 1]
    if kind == b"i":
        end = data.index(b"e", at)
        return int(data[at + 1 : end]), end + 1
    if kind == b"l":
        items, at = [], at + 1
        while data[at : at + 1] != b"e":
            item, at = _value(data, at)
            items.append(item)
        return items, at + 1
    if kind == b"d":
        items, at = {}, at + 1
        while data[at : at + 1] != b"e":
            key, at = _value(data, at)
            items[key], at = _value(data, at)
        return items, at + 1
    colon = data.index(b":", at)
    end = colon + 1 + int(data[at:colon])
    return data[colon + 1 : end], end


def ask(ports, method, arguments=None, wait=1.0):
    """Asks the nodes at these ports of 127.0.0.1 all at once, read-only, so that none takes us for a node. Returns what
    each answered within `wait` seconds."""
    asked = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        asker.bind(("127.0.0.1", 0))
        for port in ports:
            transaction = os.urandom(4)
            query = {b"id": os.urandom(20), **(arguments or {})}
            message = {b"t": transaction, b"y": b"q", b"q": method, b"a": query, b"ro": 1}
            asker.sendto(encode(message), ("127.0.0.1", port))
            asked[transaction] = port
        answers = {}
        asker.settimeout(wait)
        while len(answers) < len(asked):
            try:
                data, (_, port) = asker.recvfrom(4096)
            except TimeoutError:
                break
            message = decode(data)
            if message[b"y"] == b"r" and asked.get(message[b"t"]) == port:
                answers[port] = message[b"r"]
    return answers


def nodes(answer):
    """The nodes that an answer names: ids in hexadecimal, and ports."""
    compact = answer.get(b"nodes", b"")
    entries = (compact[at : at + 26] for at in range(0, len(compact), 26))
    return [(entry[:20].hex(), struct.unpack(">H", entry[24:])[0]) for entry in entries]
