"""Answers/s and latency of a running `jaxcxr serve`, by number of clients.

    jaxcxr serve demo.jaxcxr &
    python -m tests.bench.serve_bench --file=chest.png --clients=1,50

Each client has one connection and sends the file again as soon as it was answered. Who is refused
(503) waits as long as Retry-After says and tries again; the latency is from the first try to the
answer.
"""

import argparse
import concurrent.futures
import contextlib
import dataclasses
import http.client
import pathlib
import time
import urllib.parse

import numpy as np

from jaxcxr.errors import RunError, UserError
from jaxcxr.report.result_file import Table
from tests.bench import program

_WARM = 3  # answers before the clock starts


@dataclasses.dataclass(frozen=True)
class Load:
    """What some clients met.

    Attributes:
      seconds: that they asked.
      latencies: seconds to each answer.
      refused: how many tries were answered by 503.
    """

    seconds: float
    latencies: np.ndarray
    refused: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    parser.add_argument("--file", required=True, help="radiograph that is sent")
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="of the server")
    parser.add_argument("--path", default="/api/findings", help="that is asked (/api/findings)")
    parser.add_argument("--clients", default="1,50", metavar="N,M", help="at once (1,50)")
    parser.add_argument("--seconds", type=float, default=10, help="for each number (10)")


def run(args: argparse.Namespace) -> Table:
    """Measures and prints; a row for each number of clients.

    Raises:
      UserError: no such file, an address that is none, or a number of clients that is none.
      RunError: no server, or an answer that is an error.
    """
    try:
        content = pathlib.Path(args.file).expanduser().read_bytes()
    except OSError as error:
        raise UserError(f"{args.file} cannot be read ({error.strerror}).") from error
    counts = args.clients.split(",")
    if not all(text.strip().isdecimal() and int(text) for text in counts):
        raise UserError(f"--clients {args.clients!r} are not numbers such as 1,50.")
    address = urllib.parse.urlsplit(args.url)
    if address.scheme != "http" or not address.hostname:
        raise UserError(f"--url {args.url!r} is not such as http://127.0.0.1:8000.")
    where = address.hostname, address.port or 80
    measure(where, args.path, content, 1, 0.0)
    columns, rows = ("clients", "answers/s", "p50 ms", "p99 ms", "refused"), []
    print("  ".join(columns))
    for text in counts:
        found = measure(where, args.path, content, int(text), args.seconds)
        middle, late = 1000 * np.quantile(found.latencies, [0.5, 0.99])
        rate = len(found.latencies) / found.seconds
        rows.append((str(int(text)), f"{rate:.1f}", f"{middle:.1f}", f"{late:.1f}",
                     str(found.refused)))
        print("{:>7}{:>11}{:>8}{:>8}{:>9}".format(*rows[-1]))
    return Table(columns, rows)


def measure(
    where: tuple[str, int], path: str, content: bytes, clients: int, seconds: float
) -> Load:
    """Lets clients ask for so long, each at least `_WARM` times.

    Arguments:
      where: host and port.
      path: that is asked.
      content: the body.
      clients: at once.
      seconds: until none begins to ask again.

    Raises:
      RunError: no server, or an answer that is an error other than 503.
    """
    begun = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(clients) as pool:
        tasks = [
            pool.submit(_client, where, path, content, begun + seconds) for _ in range(clients)
        ]
        parts = [task.result() for task in tasks]
    latencies, refused = zip(*parts, strict=True)
    return Load(time.perf_counter() - begun, np.concatenate(latencies), sum(refused))


def _client(where, path: str, content: bytes, end: float) -> tuple[list[float], int]:
    latencies, refused = [], 0
    try:
        with contextlib.closing(http.client.HTTPConnection(*where, timeout=120)) as connection:
            while time.perf_counter() < end or len(latencies) < _WARM:
                begun = time.perf_counter()
                while (wait := _asked(connection, path, content)) is not None:
                    refused += 1
                    time.sleep(wait)
                latencies.append(time.perf_counter() - begun)
    except (OSError, http.client.HTTPException) as error:
        raise RunError(f"{where[0]}:{where[1]} does not answer ({error})") from error
    return latencies, refused


def _asked(connection: http.client.HTTPConnection, path: str, content: bytes) -> float | None:
    """Seconds to wait before another try; None if there was an answer."""
    connection.request("POST", path, content)
    answer = connection.getresponse()
    text = answer.read()
    if answer.status == 503:
        connection.close()  # a refusal may come before the body was read
        return float(answer.headers["Retry-After"])
    if answer.status != 200:
        raise RunError(f"{path} answers {answer.status}: {text[:300].decode(errors='replace')}")
    return None


if __name__ == "__main__":
    program.main(add_arguments, run, __doc__)
