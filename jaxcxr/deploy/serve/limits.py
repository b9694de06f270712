"""Limits requests and refuses those beyond the limits."""

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator

from starlette.requests import ClientDisconnect, Request

MEGA = 1_000_000


@dataclasses.dataclass(frozen=True)
class Limits:
    """Limits of a server.

    Attributes:
      upload: bytes of a request's body.
      pixels: that an image may declare, checked before it is decoded.
      seconds: from a request's first byte to its answer.
      waiting: requests being handled or waiting at once.
      frames: of all people of a video together, at the frame rate of the training data.
    """

    upload: int = 32 * MEGA
    pixels: int = 40 * MEGA
    seconds: float = 30.0
    waiting: int = 64
    frames: int = 10_000


class Problem(Exception):
    """An error response in the form of RFC 9457.

    Arguments:
      status: of HTTP.
      title: kind of error in a few words.
      detail: what is wrong, and what to do.
      retry: seconds after which to try again; 0: never.
    """

    def __init__(self, status: int, title: str, detail: str, retry: int = 0):
        super().__init__(detail)
        self.status, self.title, self.detail, self.retry = status, title, detail, retry


def too_large(detail: str) -> Problem:
    """Makes a 413."""
    return Problem(413, "too large", detail)


def unsupported(detail: str) -> Problem:
    """Makes a 415."""
    return Problem(415, "unsupported type", detail)


def unusable(detail: str) -> Problem:
    """Makes a 422."""
    return Problem(422, "cannot be used", detail)


def busy(detail: str) -> Problem:
    """Makes a 503 that advises to try again."""
    return Problem(503, "busy", detail, retry=1)


class Gate:
    """Admits at most `waiting` requests at once, each for `seconds`, and refuses the others."""

    def __init__(self, limits: Limits):
        self._limits, self.inside = limits, 0

    @contextlib.asynccontextmanager
    async def enter(self) -> AsyncIterator[None]:
        """Holds a place for one request while the block runs.

        Raises:
          Problem: 503, no place is free or the time is up.
        """
        if self.inside >= self._limits.waiting:
            raise busy(f"{self.inside} requests are being worked on; try again.")
        self.inside += 1
        try:
            async with asyncio.timeout(self._limits.seconds):
                yield
        except TimeoutError:
            raise busy(f"not done within {self._limits.seconds:g} s; try again later.") from None
        finally:
            self.inside -= 1


async def read_body(request: Request, most: int) -> bytes:
    """Reads the body of a request, in memory alone.

    Raises:
      Problem: 413, longer than `most` bytes; 422, empty or cut short.
    """
    refused = too_large(f"the file is larger than the limit of {most / MEGA:g} MB.")
    if int(request.headers.get("content-length", 0)) > most:
        raise refused
    body = bytearray()
    try:
        async for part in request.stream():
            if len(body) + len(part) > most:
                raise refused
            body += part
    except ClientDisconnect:
        raise unusable("the connection ended before the file did; send it again.") from None
    if not body:
        raise unusable("the body is empty; send the content of a file as the body.")
    return bytes(body)
