"""Holds the resources that requests share, and the parts of the API that both tasks share."""

import dataclasses
from typing import Annotated, Any

import pydantic
from fastapi import Request

from jaxcxr.data.staging import usable_cores
from jaxcxr.deploy.serve.decoding_process import Reply
from jaxcxr.deploy.serve.limits import Gate, Limits, read_body
from jaxcxr.deploy.serve.model_thread import Worker
from jaxcxr.deploy.serve.process_pool import Decoders

NOTICE = "For research only; not a medical device. No number is a clinical claim."
_DECODING = 2 / 3  # of the time of a request
_MOST_DECODERS = 4

Probability = Annotated[float, pydantic.Field(ge=0, le=1)]


class Problem(pydantic.BaseModel):
    """An error (RFC 9457)."""

    type: str = "about:blank"
    title: str = pydantic.Field(description="the kind of error")
    status: int = pydantic.Field(description="as of HTTP")
    detail: str = pydantic.Field(description="what is wrong and what to do")


_WRONG = {
    413: "the file, or the size it declares, is beyond the limit",
    415: "the type of the file is not supported",
    422: "the file or a parameter cannot be used",
    503: "busy; try again after the seconds of Retry-After",
}
RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {
        "description": text,
        "content": {"application/problem+json": {"schema": Problem.model_json_schema()}},
    }
    for status, text in _WRONG.items()
}
RESPONSES[503]["headers"] = {
    "Retry-After": {"description": "seconds", "schema": {"type": "integer", "minimum": 1}}
}


@dataclasses.dataclass
class ServerResources:
    """Resources that requests share.

    Attributes:
      limits: of requests.
      gate: admits requests.
      decoders: decode files.
      worker: calls the model.
    """

    limits: Limits
    gate: Gate
    decoders: Decoders
    worker: Worker

    @classmethod
    def of(cls, limits: Limits) -> "ServerResources":
        """Makes unused resources."""
        count = min(_MOST_DECODERS, usable_cores())
        return cls(
            limits, Gate(limits), Decoders(count, limits.seconds * _DECODING),
            Worker(limits.waiting),
        )

    async def body(self, request: Request) -> bytes:
        """Reads the body of a request, see `read_body`."""
        return await read_body(request, self.limits.upload)

    async def decoded(self, content: bytes, **options: Any) -> Reply:
        """Decodes a file within the limits, see `decoding_process`."""
        limits = {"pixels": self.limits.pixels, "frames": self.limits.frames}
        return await self.decoders.decode(content, **limits, **options)


def body_of(description: str, *media_types: str) -> dict[str, Any]:
    """Describes a file as the body, in terms of OpenAPI."""
    schema = {"type": "string", "format": "binary"}
    return {"requestBody": {
        "required": True, "description": description,
        "content": {name: {"schema": schema} for name in media_types},
    }}
