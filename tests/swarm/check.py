#!/usr/bin/env python3
"""Puts the example into a swarm of libtorrent sessions, and checks what both then say. See `run`."""

import atexit
import collections
import hashlib
import itertools
import json
import pathlib
import queue
import random
import signal
import subprocess
import sys
import threading
import time

import krpc

SHORT = sys.argv[2:] == ["short"]
# In the short form nobody is killed.
SESSIONS, KILLED, TARGETS = (14, 0, 2) if SHORT else (40, 10, 6)
SEED = 4
# The k of the example's buckets, and that of BEP 5.
BUCKET, CLOSEST = 20, 8


def check(holds, what):
    print(("ok      " if holds else "FAILED  ") + what, flush=True)
    if not holds:
        sys.exit(1)


class Swarm:
    def __init__(self):
        script = pathlib.Path(__file__).with_name("swarm.py")
        command = [sys.executable, str(script), str(SESSIONS), str(SEED)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.nodes = {node["key"]: node["port"] for node in self.answer()["nodes"]}

    def answer(self):
        line = self.process.stdout.readline()
        return json.loads(line) if line else sys.exit("the swarm has ended")

    def obey(self, *words):
        print(*words, file=self.process.stdin, flush=True)
        return self.answer()

    def closest(self, target):
        return sorted(self.nodes, key=lambda key: int(key, 16) ^ int(target, 16))[:CLOSEST]


class Example:
    """The example, and what its events amount to."""

    def __init__(self, command):
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        # However this ends. (The swarm ends with its stdin.)
        atexit.register(self.process.kill)
        line = self.process.stderr.readline()
        words = line.split()
        if words[:2] != ["serving", "on"]:
            sys.exit(f"the example: {line}{self.process.stderr.read()}")
        self.key, self.port = words[5], int(words[2].split(":")[1])
        self.table, self.came_back, self.lookups, self.bootstrapped, self.report = {}, [], [], None, None
        self.removed = set()
        self.events = queue.Queue()
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.process.stdout:
            self.events.put(json.loads(line))
        self.events.put(None)

    def take(self, event):
        kind = event["event"] if event else sys.exit(f"the example has ended: {self.process.stderr.read()}")
        # Seconds since its start.
        self.time = event.get("at_us", event.get("ended_us", 0)) / 1e6
        if kind == "admitted":
            if event["key"] in self.removed:
                self.came_back.append(event["key"])
            self.table[event["key"]] = event["address"]
        elif kind == "removed":
            self.table.pop(event["key"], None)
            self.removed.add(event["key"])
        elif kind == "bootstrapped":
            self.bootstrapped = event["stats"]
        elif kind == "lookup":
            self.lookups.append(event)
        elif kind == "report":
            self.report = event

    def until(self, holds, seconds=30):
        """Follows the events until this holds; says whether it came to that, and after how long."""
        begun = time.monotonic()
        while not holds():
            left = begun + seconds - time.monotonic()
            if left <= 0:
                return False, seconds
            try:
                self.take(self.events.get(timeout=min(left, 0.2)))
            except queue.Empty:
                pass
        return True, time.monotonic() - begun

    def cpl(self, key):
        return 160 - (int(key, 16) ^ int(self.key, 16)).bit_length()

    def buckets(self, keys):
        return collections.Counter(self.cpl(key) for key in keys)

    def round(self, targets, seconds=30):
        """The next round of lookups that begins after this moment, by target."""
        while not self.events.empty():
            self.take(self.events.get())
        # One round may be under way; the one after it is of interest.
        seen = len(self.lookups)
        ended, _ = self.until(lambda: len(self.lookups) >= seen + 2 * len(targets), seconds)
        check(ended, f"{len(targets)} lookups, done again and again")
        return {lookup["target"]: lookup for lookup in self.lookups[seen:]}


def exact(swarm, rounds, what):
    """Checks that each lookup found the nodes that are closest in truth."""
    found = []
    for target, lookup in rounds.items():
        names = [node["key"] for node in lookup["closest"][:CLOSEST]]
        found.append(len(set(names) & set(swarm.closest(target))))
    check(all(count == CLOSEST for count in found), f"{what}: of the {CLOSEST} true closest found: {found}")


def stores(swarm, ours, chance):
    """Checks that the others store with our node what belongs there."""
    distance = lambda key, target: int(key, 16) ^ int(target, 16)
    target = lambda text: hashlib.sha1(b"%d:%s" % (len(text), text)).hexdigest()
    # An item that is nearer to us than to any of them.
    texts = (b"record-%d" % number for number in itertools.count())
    nearer = lambda text: all(distance(ours.key, target(text)) < distance(key, target(text)) for key in swarm.nodes)
    text = next(filter(nearer, texts))
    put = swarm.obey("put", text.decode())
    check(put["target"] == target(text), "a session puts an item that belongs with us")
    get = lambda: krpc.ask([ours.port], b"get", {b"target": bytes.fromhex(target(text))}).get(ours.port, {})
    kept, took = ours.until(lambda: get().get(b"v") == text)
    check(kept, f"after {took:.1f} s our node has it")

    port = chance.randrange(1024, 65536)
    swarm.obey("announce", ours.key, str(port))
    peers = {b"info_hash": bytes.fromhex(ours.key)}
    values = lambda: krpc.ask([ours.port], b"get_peers", peers).get(ours.port, {}).get(b"values", [])
    kept, took = ours.until(lambda: bytes([127, 0, 0, 1]) + port.to_bytes(2, "big") in values())
    check(kept, f"it announces a peer of the torrent with our id: after {took:.1f} s our node names it")


def does(example, swarm, chance, *arguments, code=0):
    """What the example reports as a client of the swarm, which knows one session."""
    port = chance.choice(sorted(swarm.nodes.values()))
    command = [example, "--json", "--deadline", "20s", "--bootstrap", f"127.0.0.1:{port}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if done.returncode != code:
        check(False, f"{arguments}: exit code {done.returncode}, not {code}\n{done.stdout}\n{done.stderr}")
    report = json.loads(done.stdout)
    return {**report["actions"][0], "by": report["local"]["key"]}


def records(example, swarm, ours, chance):
    """Checks that the example, as a client, stores what libtorrent finds, and finds what libtorrent stores. Returns how many
    of these items our node keeps."""
    everybody = {**swarm.nodes, ours.key: ours.port}
    text = "a record of kad-proto"
    put = does(example, swarm, chance, "--put", text)
    named = {store["key"] for store in put["stores"] if store["outcome"] == "stored"}
    # A session names 8 nodes: more than that are the closest of those that were met on the way.
    nearest = sorted(everybody, key=lambda key: int(key, 16) ^ int(put["target"], 16))[:CLOSEST]
    check(
        len(put["stores"]) == len(named) and set(nearest) <= named,
        f"our client puts an item with {len(named)} nodes, the {CLOSEST} closest in truth among them, "
        f"in {put['stats']['sent']} requests",
    )
    answers = krpc.ask(everybody.values(), b"get", {b"target": bytes.fromhex(put["target"])})
    holders = {key for key, port in everybody.items() if b"v" in answers.get(port, {})}
    check(holders == named, f"these {len(holders)} have it, and nobody else")
    # A session that does not have it, so that it has to ask.
    reader = lambda of: chance.choice(sorted(port for key, port in swarm.nodes.items() if key not in of))
    got = swarm.obey("get", put["target"], str(reader(holders)))
    check(got["item"] == text, f"libtorrent gets it: {got['item']!r}")

    text = "a-record-of-libtorrent"
    target = swarm.obey("put", text)["target"]
    has = lambda ports: any(b"v" in it for it in krpc.ask(ports, b"get", {b"target": bytes.fromhex(target)}).values())
    check(patiently(lambda: has(swarm.nodes.values())), "a session puts another item")
    got = does(example, swarm, chance, "--get", target)
    check(got["text"] == text, f"our client gets it: {got['text']!r}, in {got['stats']['sent']} requests")
    nowhere = f"{chance.getrandbits(160):040x}"
    got = does(example, swarm, chance, "--get", nowhere, code=3)
    check(got["item"] is None, "what is nowhere is not found, and the exit code is 3")

    info_hash, port = f"{chance.getrandbits(160):040x}", chance.randrange(1024, 65536)
    announced = does(example, swarm, chance, "--announce", info_hash, "--announce-port", str(port))
    told = {store["key"] for store in announced["stores"] if store["outcome"] == "stored"}
    nearest = sorted(everybody, key=lambda key: int(key, 16) ^ int(info_hash, 16))[:CLOSEST]
    check(set(nearest) <= told, f"our client announces a peer to {len(told)} nodes, the {CLOSEST} closest among them")
    found = swarm.obey("peers", info_hash, str(reader(told)))["peers"]
    check(found == [port], f"libtorrent finds it: {found}")
    other = chance.randrange(1024, 65536)
    swarm.obey("announce", info_hash, str(other))
    expected = sorted(f"127.0.0.1:{port}" for port in (port, other))
    ask = lambda: sorted(peer["address"] for peer in does(example, swarm, chance, "--peers", info_hash)["peers"])
    check(patiently(lambda: ask() == expected), "libtorrent announces another; our client finds both")

    crawl = does(example, swarm, chance, "--crawl")
    dead = {node["key"] for node in crawl["nodes"] if node["reach"] == "unreachable"}
    # libtorrent takes whoever stores something for a node, though they say that they are none (BEP 43).
    check(dead <= {put["by"], announced["by"]}, f"the crawl tells {len(dead)} of our own clients that have left from those that live")
    found = {node["key"]: node["address"] for node in crawl["nodes"] if node["reach"] == "reachable"}
    check(
        found == {key: f"127.0.0.1:{port}" for key, port in everybody.items()},
        f"our client maps the network: all {len(swarm.nodes)} sessions and our node, and {crawl['counts']['edges']} edges, "
        f"in {crawl['stats']['sent']} requests",
    )
    return (ours.key in holders) + has([ours.port])


def patiently(holds, seconds=40):
    """Whether this comes to hold. A libtorrent session may wait 15 s for a node that is gone, and again for another."""
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


def some_die(swarm, ours, chance, targets):
    """Kills some of the sessions, and checks that our node drops these and finds the others."""
    dead = set(chance.sample(sorted(ours.table), KILLED))
    swarm.obey("kill", *(str(swarm.nodes[key]) for key in sorted(dead)))
    ports = [swarm.nodes.pop(key) for key in dead]
    check(not krpc.ask(ports, b"ping"), f"{KILLED} sessions of the table are killed, and silent")
    gone, took = ours.until(lambda: not ours.table.keys() & dead, 45)
    left = len(ours.table.keys() & dead)
    check(gone, f"after {took:.1f} s {KILLED - left} of these {KILLED} have left the table of now {len(ours.table)}")
    exact(swarm, ours.round(targets), f"among the {len(swarm.nodes)} that are left")
    check(not set(ours.came_back) & dead, "none of the dead came back")
    return dead


def main(example):
    chance = random.Random(SEED)
    begun = time.monotonic()
    swarm = Swarm()
    check(len(swarm.nodes) == SESSIONS, f"{SESSIONS} libtorrent sessions after {time.monotonic() - begun:.1f} s")

    targets = [f"{chance.getrandbits(160):040x}" for _ in range(TARGETS)]
    first = swarm.nodes[chance.choice(sorted(swarm.nodes))]
    command = [example, "--json", "--serve", "--bootstrap", f"127.0.0.1:{first}", "--every", "1s", "--probe", "1s"]
    ours = Example(command + [word for target in targets for word in ("--target", target)])

    joined, _ = ours.until(lambda: ours.bootstrapped)
    check(joined, f"our node joins by one of them, in {ours.bootstrapped['sent']} requests")
    room = {cpl: min(count, BUCKET) for cpl, count in ours.buckets(swarm.nodes).items()}
    half, _ = ours.until(lambda: len(ours.table) >= sum(room.values()) / 2)
    check(half, f"{ours.time:.3f} s after its start it knows half of them")
    exact(swarm, ours.round(targets), f"from there, knowing {len(ours.table)}")

    swarm.obey("search", ours.key)
    naming = lambda: sum(
        (ours.key, ours.port) in krpc.nodes(answer)
        for answer in krpc.ask(swarm.nodes.values(), b"find_node", {b"target": bytes.fromhex(ours.key)}).values()
    )
    named, took = ours.until(lambda: naming() >= SESSIONS * 3 // 4)
    check(named, f"the others look for its neighbourhood: after {took:.1f} s {naming()} of {SESSIONS} name it")
    full, took = ours.until(lambda: ours.buckets(ours.table) == room)
    shown = dict(sorted(ours.buckets(ours.table).items()))
    check(full, f"after {took:.1f} s its table holds all {len(ours.table)} that it has room for, by cpl {shown}")
    check(all(ours.table[key] == f"127.0.0.1:{swarm.nodes[key]}" for key in ours.table), "each at its own address")

    stores(swarm, ours, chance)
    kept = 1 + records(example, swarm, ours, chance)

    dead = set() if SHORT else some_die(swarm, ours, chance, targets)
    lost = sorted(ours.removed - dead)
    check(not lost, "none that lives was removed" + (f": {lost}" if lost else ""))

    ours.process.send_signal(signal.SIGINT)
    ours.until(lambda: ours.report)
    code = ours.process.wait(10)
    check(code == 0 and ours.report, "interrupted, it ends with a report")
    requests, routing, datagrams = (ours.report[of] for of in ("requests", "routing", "datagrams"))
    ended = sum(requests[how] for how in ("answered", "failed", "timed_out", "cancelled", "in_flight"))
    check(requests["sent"] == ended, f"requests add up: {requests}")
    check(SHORT or routing["probes_failed"] > 0, f"routing maintenance: {routing}")
    check(ours.report["kept"]["items"] == kept, f"kept for others: {ours.report['kept']}")
    check(datagrams["served"] > 0 and datagrams["malformed"] == 0, f"datagrams: {datagrams}")
    swarm.process.stdin.close()
    check(swarm.process.wait(30) == 0, f"all of it in {time.monotonic() - begun:.1f} s")


if __name__ == "__main__":
    main(sys.argv[1])
