#!/usr/bin/env python3
"""The example among libtorrent sessions, in a network namespace of its own, while the loopback device is down for 45 s, and
while the process is stopped for 60 s. It has to keep its table, or regain it. Run by `run outage`; it needs the rights to
make a namespace (root)."""

import fcntl
import random
import signal
import socket
import struct
import sys
import time

from check import SEED, Example, Swarm, check

DOWN, STOPPED, BACK = 45, 60, 60
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1


def loopback(up):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = lambda flags: struct.pack("16sH14x", b"lo", flags)
        flags = struct.unpack("16xH14x", fcntl.ioctl(any_socket, SIOCGIFFLAGS, request(0)))[0]
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, request(flags | IFF_UP if up else flags & ~IFF_UP))


def main(example):
    loopback(True)
    swarm = Swarm()
    first = swarm.nodes[random.Random(SEED).choice(sorted(swarm.nodes))]
    ours = Example([example, "--json", "--serve", "--bootstrap", f"127.0.0.1:{first}", "--probe", "20s"])
    ours.until(lambda: len(ours.table) == len(swarm.nodes), 120)
    known = set(ours.table)
    check(len(known) >= 0.9 * len(swarm.nodes), f"after {ours.time:.0f} s it knows {len(known)} of {len(swarm.nodes)} sessions")

    def returns(what):
        lost = len(known - ours.table.keys())
        back, took = ours.until(lambda: len(known & ours.table.keys()) >= 0.95 * len(known), BACK)
        check(back, f"{what}: {lost} of {len(known)} lost; after {took:.1f} s it knows {len(known & ours.table.keys())}")

    loopback(False)
    ours.until(lambda: False, DOWN)
    loopback(True)
    returns(f"its link was down for {DOWN} s")
    # It may lose some only now, when their checks fail.
    ours.until(lambda: False, BACK)
    returns(f"{BACK} s later")

    ours.process.send_signal(signal.SIGSTOP)
    time.sleep(STOPPED)
    ours.process.send_signal(signal.SIGCONT)
    returns(f"it was stopped for {STOPPED} s")
    ours.until(lambda: False, BACK)
    returns(f"{BACK} s later")

    ours.process.send_signal(signal.SIGINT)
    check(ours.process.wait(10) == 0, "interrupted, it ends")
    swarm.process.stdin.close()
    swarm.process.wait(30)


if __name__ == "__main__":
    main(sys.argv[1])
