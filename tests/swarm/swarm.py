#!/usr/bin/env python3
"""A swarm of libtorrent sessions on 127.0.0.1, each a node of the same DHT.

It prints one JSON object when the swarm has formed: its nodes, as ids and ports. Then it obeys lines on stdin and answers
each with a JSON object: `search KEY` has each session look for peers of that key; `put TEXT` has one of them store an
item (BEP 44), and `announce KEY PORT` announce a peer; `get KEY PORT` has the session at this port get an item, and
`peers KEY PORT` peers; `kill PORT...` ends these sessions, for good and without a word to the others. The end of stdin ends
all.
"""

import json
import random
import sys
import time

import krpc
import libtorrent

SETTINGS = {
    "listen_interfaces": "127.0.0.1:0",
    "alert_mask": 0,
    "enable_dht": True,
    # Nobody but each other: no router, no broadcast, no bootstrap node.
    "dht_bootstrap_nodes": "",
    "enable_lsd": False,
    "enable_upnp": False,
    "enable_natpmp": False,
    # All have one address, which these would hold against them.
    "dht_restrict_routing_ips": False,
    "dht_restrict_search_ips": False,
    "dht_block_ratelimit": 1_000_000,
    "dht_upload_rate_limit": 8_000_000,
}
# Of the alerts that tell what was found.
CATEGORIES = libtorrent.alert.category_t.dht_notification | libtorrent.alert.category_t.dht_operation_notification
# How many nodes each is told of. It has to find the others.
DEGREE = 4
# So many of those nearest to it have to know each.
NEIGHBOURS = 8


def until(what, holds, seconds=30):
    for _ in range(seconds * 4):
        value = holds()
        if value:
            return value
        time.sleep(0.25)
    sys.exit(f"the swarm: {what}: not within {seconds} s")


def start(count, seed):
    chance = random.Random(seed)
    sessions = [libtorrent.session(SETTINGS) for _ in range(count)]
    swarm = until("all listen", lambda: listening(sessions))
    ids = {}
    until("all answer", lambda: ids.update(names(set(swarm) - set(ids))) or len(ids) == count)
    for port, session in swarm.items():
        for other in chance.sample([other for other in swarm if other != port], DEGREE):
            session.add_dht_node(("127.0.0.1", other))
    until("all know others", lambda: search(swarm, ids.get) or formed(ids))
    return swarm, ids


def listening(sessions):
    swarm = {session.listen_port(): session for session in sessions}
    return swarm if 0 not in swarm and len(swarm) == len(sessions) else None


def names(ports):
    return {port: answer[b"id"].hex() for port, answer in krpc.ask(ports, b"ping").items()}


def search(swarm, key_of):
    for port, session in swarm.items():
        session.dht_get_peers(libtorrent.sha1_hash(bytes.fromhex(key_of(port))))


def formed(ids):
    """Whether each is known to those nearest to it: who asks these for it is told of it."""
    for port, key in ids.items():
        nearest = sorted(ids, key=lambda other: int(ids[other], 16) ^ int(key, 16))[1 : NEIGHBOURS + 1]
        answers = krpc.ask(nearest, b"find_node", {b"target": bytes.fromhex(key)})
        if not all((key, port) in krpc.nodes(answers.get(other, {})) for other in nearest):
            return False
    return True


def told(session, begin, kind, of, seconds=20):
    """What a session says of this kind and of this key, once it has begun."""
    session.apply_settings({"alert_mask": CATEGORIES})
    begin(session, libtorrent.sha1_hash(bytes.fromhex(of)))
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        session.wait_for_alert(int(left * 1000) + 1)
        for alert in session.pop_alerts():
            if isinstance(alert, kind):
                key = getattr(alert, "target", None) or alert.info_hash
                if str(key) == of:
                    yield alert


def get(session, key):
    begin, kind = libtorrent.session.dht_get_immutable_item, libtorrent.dht_immutable_item_alert
    item = next((alert.item for alert in told(session, begin, kind, key)), None)
    return item.decode() if isinstance(item, bytes) else item


def peers(session, key):
    begin, kind = libtorrent.session.dht_get_peers, libtorrent.dht_get_peers_reply_alert
    return next(([port for _, port in alert.peers()] for alert in told(session, begin, kind, key)), [])


def say(value):
    print(json.dumps(value), flush=True)


def main(count, seed):
    swarm, ids = start(count, seed)
    say({"nodes": [{"key": key, "port": port} for port, key in ids.items()]})
    for line in sys.stdin:
        match line.split():
            case ["kill", *ports]:
                # No other reference to a session is left anywhere: it ends here.
                for port in ports:
                    del swarm[int(port)]
                say({"killed": [int(port) for port in ports]})
            case ["search", key]:
                search(swarm, lambda _: key)
                say({"searching": key})
            case ["put", text]:
                target = next(iter(swarm.values())).dht_put_immutable_item(text.encode())
                say({"target": str(target)})
            case ["announce", key, port]:
                info_hash = libtorrent.sha1_hash(bytes.fromhex(key))
                next(iter(swarm.values())).dht_announce(info_hash, int(port), 0)
                say({"announced": key})
            case ["get", key, port]:
                say({"item": get(swarm[int(port)], key)})
            case ["peers", key, port]:
                say({"peers": peers(swarm[int(port)], key)})
            case _:
                sys.exit(f"the swarm: no such command: {line.strip()}")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
