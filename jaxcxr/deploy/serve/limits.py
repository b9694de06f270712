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


class Refusal(Exception):
    """An error response (RFC 9457): status, kind, what is wrong and what to do, seconds to wait."""

    def __init__(self, status: int, title: str, detail: str, retry: int = 0):
        super().__init__(detail)
        self.status, self.title, self.detail, self.retry = status, title, detail, retry


def too_large(detail: str) -> Refusal:
    """Makes a 413."""
    return Refusal(413, "too large", detail)


def unsupported(detail: str) -> Refusal:
    """Makes a 415."""
    return Refusal(415, "unsupported type", detail)


def unusable(detail: str) -> Refusal:
    """Makes a 422."""
    return Refusal(422, "cannot be used", detail)


def busy(detail: str) -> Refusal:
    """Makes a 503 that advises to try again."""
    return Refusal(503, "busy", detail, retry=1)


class Gate:
    """Admits at most `waiting` requests at once, each for `seconds`, and refuses the others."""

    def __init__(self, limits: Limits):
        self._limits, self.inside = limits, 0

    @contextlib.asynccontextmanager
    async def enter(self) -> AsyncIterator[None]:
        """Holds a place for a request while the block runs; a 503 if none is free or time is up."""
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
    """Reads the body of a request in memory alone; a 413 if too long, a 422 if empty or cut."""
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
