"""Lets all processes of a run meet before JAX connects them, and hear when one ends.

JAX's own start ends a process without saying who is missing, and a lost process is noticed by a
heartbeat after minutes. Process 0 listens on the coordinator's port until everyone has come; the
connections then stay open, and the operating system closes those of a process that dies.
"""

import contextlib
import json
import os
import selectors
import socket
import sys
import threading
import time
from collections.abc import Iterable

from jaxcxr.errors import RunError

# A process that fails says so; the others may be failing of the same cause and have these seconds
# to say it in their own words.
GRACE = 5.0
_RETRY = 0.3
_GREETING = 5.0  # seconds in which who connects must say its name


def meet(address: str, process: int, processes: int, seconds: float) -> "PeerConnections":
    """Waits for all processes.

    Arguments:
      address: "host:port" of process 0; JAX's coordinator takes the same port afterwards.
      seconds: time to wait.
    """
    host, _, port = address.rpartition(":")
    deadline = time.monotonic() + seconds
    if process == 0:
        return PeerConnections(0, _gather(int(port), processes, deadline, seconds))
    first = _join(host.strip("[]"), int(port), process, processes, deadline)
    return PeerConnections(process, {0: first})


def _gather(port: int, processes: int, deadline: float, seconds: float) -> dict[int, "_Peer"]:
    """Process 0: take in the others and tell them to begin, or who is missing."""
    peers: dict[int, _Peer] = {}
    try:
        if socket.has_dualstack_ipv6():
            server = socket.create_server(
                ("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=processes
            )
        else:
            server = socket.create_server(("", port), backlog=processes)
    except OSError as error:
        raise RunError(
            f"process 0 cannot listen on port {port}: {error.strerror}; another run may use it."
        ) from error
    with server:
        while len(peers) + 1 < processes and (left := deadline - time.monotonic()) > 0:
            server.settimeout(min(left, 1.0))
            with contextlib.suppress(TimeoutError):
                _take(_Peer(server.accept()[0]), peers, processes, deadline)
            for number in [number for number, peer in peers.items() if peer.has_left()]:
                peers.pop(number).close()
    missing = sorted(set(range(1, processes)) - set(peers))
    for peer in peers.values():
        peer.send({"missing": missing, "seconds": seconds})
    if missing:
        _close(peers.values())
        raise RunError(_missing(missing, processes, seconds))
    return peers


def _take(peer: "_Peer", peers: dict[int, "_Peer"], processes: int, deadline: float) -> None:
    """Greets who connected; leaves strangers (a probe of the port, a process of an older run)."""
    hello = peer.receive(_GREETING) or {}
    number = hello.get("process")
    if not isinstance(number, int) or number < 1:
        peer.close()
        return
    wrong = None
    if number in peers and not peers[number].has_left():
        wrong = (f"process {number} came twice, from {peers[number].host} and {hello['host']}; "
                 "give every process its own JAX_PROCESS_ID.")
    elif hello["processes"] != processes or number >= processes:
        wrong = (f"process {number} on {hello['host']} counts {hello['processes']} processes, "
                 f"process 0 counts {processes}; start all with the same number.")
    if wrong:
        for other in (*peers.values(), peer):
            other.send({"wrong": wrong})
        _close((*peers.values(), peer))
        raise RunError(wrong)
    peer.host = hello["host"]
    peer.send({"wait": deadline - time.monotonic(), "host": socket.gethostname()})
    peers[number] = peer


def _join(host: str, port: int, process: int, processes: int, deadline: float) -> "_Peer":
    """Finds process 0, in another process, and waits for its word."""
    begun = time.monotonic()
    answer: dict | None = None
    while time.monotonic() < deadline:
        try:
            peer = _Peer(socket.create_connection((host, port), timeout=_GREETING))
        except OSError:
            time.sleep(_RETRY)
            continue
        peer.send({"process": process, "processes": processes, "host": socket.gethostname()})
        answer = peer.receive(_GREETING)
        if answer and "wait" in answer:  # from here on process 0's clock counts
            peer.host, deadline = answer["host"], time.monotonic() + answer["wait"] + _GREETING
            answer = peer.receive(answer["wait"] + _GREETING)
        if answer:
            return _admitted(peer, answer, processes)
        peer.close()
        time.sleep(_RETRY)
    raise RunError(
        f"process 0 is missing: nothing of this run answered at {host}:{port} within "
        f"{time.monotonic() - begun:.0f} s (this is process {process} of {processes}). Look at its "
        "log, and whether this host may reach that port."
    )


def _admitted(peer: "_Peer", answer: dict, processes: int) -> "_Peer":
    """Returns the connection to process 0, if it says that all are there."""
    if "wrong" in answer:
        peer.close()
        raise RunError(answer["wrong"])
    if answer["missing"]:
        peer.close()
        raise RunError(_missing(answer["missing"], processes, answer["seconds"]))
    return peer


def _close(peers: Iterable["_Peer"]) -> None:
    for peer in peers:
        peer.close()


def _missing(numbers: list[int], processes: int, seconds: float) -> str:
    shown = ", ".join(map(str, numbers[:32])) + (", ..." if len(numbers) > 32 else "")
    which = f"process {shown} is" if len(numbers) == 1 else f"processes {shown} are"
    return (
        f"{which} missing: {processes - len(numbers)} of {processes} processes came within "
        f"{seconds:.0f} s. Look at the missing ones' logs, or wait longer (--start_timeout)."
    )


class PeerConnections:
    """Open connections: process 0's to all, the others' to process 0.

    A thread waits on them. When a process ends without having said that it is done, it prints
    which one and ends this process with a non-zero code, whatever the main thread waits for.
    """

    def __init__(self, process: int, peers: dict[int, "_Peer"]):
        self._process, self._peers, self._leaving = process, peers, False
        self._lost = threading.Event()
        self._lock = threading.Lock()
        threading.Thread(target=self._watch, daemon=True, name="peers").start()

    def leave(self, code: int, message: str = "") -> None:
        """Says that this process ends, well (0) or not; it then ignores the others' ends."""
        with self._lock:
            self._leaving = True
        self._tell({"left": code, "process": self._process, "host": socket.gethostname(),
                    "message": message})
        for peer in self._peers.values():
            peer.finish()

    def wait_lost(self, seconds: float) -> None:
        """Waits that long for news of a lost process, which end this one."""
        self._lost.wait(seconds)

    def _tell(self, message: dict, but: int | None = None) -> None:
        for number, peer in list(self._peers.items()):
            if number != but:
                peer.send(message)

    def _watch(self) -> None:
        selector, said = selectors.DefaultSelector(), set()
        peers = dict(self._peers)
        for number, peer in peers.items():
            selector.register(peer.socket, selectors.EVENT_READ, number)
        while peers:
            waiting = [number for number, peer in peers.items() if peer.has_line()]
            for number in waiting or [key.data for key, _ in selector.select()]:
                peer = peers[number]
                news = peer.receive(_GREETING)
                if news is None:  # the connection is closed
                    selector.unregister(peer.socket)
                    peers.pop(number).close()
                    if number in said:
                        continue
                    news = {"left": None, "process": number, "host": peer.host}
                said.add(news["process"])
                if news["left"] != 0:
                    self._end(news)

    def _end(self, news: dict) -> None:
        """Ends this process because another one ended."""
        code, number = news["left"], news["process"]
        with self._lock:
            if self._leaving:
                return
        if self._process == 0:
            self._tell(news, but=number)
        if code is None:
            how = "has ended without a word (killed, out of memory, or its host is lost)"
        else:
            time.sleep(GRACE)
            how = f"has failed: {news['message']}" if news.get("message") else "has failed"
        with self._lock:
            if self._leaving:
                return
            self._lost.set()
            print(f"jaxcxr: process {number} on {news['host']} {how}; process {self._process} "
                  "stops too. Start the same command again to go on from the last checkpoint.",
                  file=sys.stderr, flush=True)
            os._exit(code or 1)


class _Peer:
    """A connection that carries JSON lines."""

    def __init__(self, connection: socket.socket):
        self.socket, self.host, self._rest = connection, "?", b""
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in (("TCP_KEEPIDLE", 20), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
            if hasattr(socket, name):  # a host without power sends no goodbye either
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)

    def send(self, message: dict) -> None:
        """Sends a line; that the other end is gone shows when it is read from."""
        with contextlib.suppress(OSError):
            self.socket.settimeout(_GREETING)
            self.socket.sendall(json.dumps(message).encode() + b"\n")

    def receive(self, seconds: float) -> dict | None:
        """Returns the next line; None where none comes in time, or something else comes."""
        deadline = time.monotonic() + seconds
        try:
            while b"\n" not in self._rest:
                self.socket.settimeout(max(deadline - time.monotonic(), 0.001))
                part = self.socket.recv(4096)
                if not part or len(self._rest) > 65536:
                    return None
                self._rest += part
            line, _, self._rest = self._rest.partition(b"\n")
            message = json.loads(line)
            return message if isinstance(message, dict) else None
        except (OSError, ValueError):
            return None

    def has_line(self) -> bool:
        """Tells whether a line came together with the one before it."""
        return b"\n" in self._rest

    def has_left(self) -> bool:
        """Tells whether the other end closed the connection."""
        try:
            self.socket.settimeout(0.0)
            return self.socket.recv(1, socket.MSG_PEEK) == b""
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            return True

    def finish(self) -> None:
        """Says that nothing more will be sent; the other end may still send."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Closes the connection."""
        self.socket.close()
