"""Processes meet, the missing are named, and the end of one ends the others; threads stand in."""

import json
import socket
import threading
import time

import pytest

from jaxcxr.errors import RunError
from jaxcxr.train import rendezvous


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def meet(numbers, processes, seconds=1.5, port=None, counts=None):
    """(line or error of each process) of those that come."""
    address, results = f"127.0.0.1:{port or free_port()}", {}

    def come(place, number):
        try:
            count = (counts or {}).get(number, processes)
            results[place] = rendezvous.meet(address, number, count, seconds)
        except RunError as error:
            results[place] = str(error)

    threads = [threading.Thread(target=come, args=item) for item in enumerate(numbers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    return [results[place] for place in range(len(numbers))]


def test_the_missing_are_named_to_all_who_came():
    said = meet([0, 1, 4], 6)
    assert len(set(said)) == 1
    assert said[0].startswith("processes 2, 3, 5 are missing: 3 of 6 processes came within 2 s")
    assert "process 1 is missing: 1 of 2" in meet([0], 2)[0]


def test_without_process_0_its_address_is_named():
    port = free_port()
    said, = meet([2], 3, port=port)
    assert said.startswith("process 0 is missing: nothing of this run answered")
    assert f"127.0.0.1:{port}" in said
    assert "this is process 2 of 3" in said


def test_a_number_given_twice_and_another_count_end_the_start_at_once():
    begun = time.monotonic()
    assert all("process 1 came twice" in said for said in meet([0, 1, 1], 3, 10))
    said = meet([0, 1], 3, 10, counts={1: 2})
    assert all("counts 2 processes, process 0 counts 3" in text for text in said)
    assert time.monotonic() - begun < 8


def test_strangers_on_the_port_do_not_disturb():
    port = free_port()
    strangers = threading.Thread(target=knock, args=(port,))
    strangers.start()
    lines = meet([0, 1], 2, 10, port=port)
    strangers.join()
    assert all(isinstance(line, rendezvous.PeerConnections) for line in lines)
    leave(lines)


def leave(lines):
    """All end well, and their threads are gone."""
    for line in lines:
        line.leave(0)
    wait_until(lambda: all(thread.name != "line" for thread in threading.enumerate()))


def knock(port):
    """A probe that hangs up, and a client of another protocol."""
    for said in (b"", b"PRI * HTTP/2.0\r\n\r\n", json.dumps([1]).encode() + b"\n"):
        for _ in range(50):
            try:
                with socket.create_connection(("127.0.0.1", port), timeout=1) as stranger:
                    stranger.sendall(said)
                break
            except OSError:
                time.sleep(0.02)


@pytest.fixture
def exits(monkeypatch):
    """Codes with which processes would have ended."""
    codes = []
    monkeypatch.setattr(rendezvous.os, "_exit", codes.append)
    monkeypatch.setattr(rendezvous, "GRACE", 0.2)
    return codes


def wait_until(condition):
    end = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_process_that_vanishes_ends_the_others_with_its_name(exits, capfd):
    lines = meet([0, 1, 2], 3, 10)
    lines[1]._leaving = True  # it says nothing more itself
    lines[1]._peers[0].socket.shutdown(socket.SHUT_RDWR)  # what the system does at its death
    wait_until(lambda: len(exits) == 2)
    assert exits == [1, 1]
    said = capfd.readouterr().err
    for other in (0, 2):
        assert f"its host is lost); process {other} stops too" in said
    assert said.count("process 1 on") == 2
    leave(lines)


def test_a_failure_is_passed_on_with_its_code_after_a_while(exits, capfd):
    lines = meet([0, 1, 2], 3, 10)
    begun = time.monotonic()
    lines[2].leave(2, "config.x is 3")
    wait_until(lambda: len(exits) == 2)
    assert time.monotonic() - begun >= 0.2
    assert exits == [2, 2]
    assert "has failed: config.x is 3; process 1 stops too" in capfd.readouterr().err
    leave(lines)


def test_processes_that_are_done_or_fail_themselves_end_in_their_own_way(exits):
    lines = meet([0, 1, 2], 3, 10)
    lines[1].leave(0)
    time.sleep(0.1)
    lines[0].leave(2, "the same mistake")
    lines[2].leave(2, "the same mistake")
    time.sleep(0.5)
    leave(lines)
    assert exits == []
