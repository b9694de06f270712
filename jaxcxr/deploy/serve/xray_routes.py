"""Serves findings and heat maps of a radiograph."""

import asyncio
import base64
from typing import Annotated, Literal

import cv2
import fastapi
import numpy as np
import pydantic
from fastapi import Query, Request, Response

from jaxcxr.deploy.bundle.bundled_model import Bundle
from jaxcxr.deploy.predict import xray_predictor
from jaxcxr.deploy.predict.xray_predictor import XrayPrediction
from jaxcxr.deploy.serve.decoding_process import kind_of
from jaxcxr.deploy.serve.limits import unsupported, unusable
from jaxcxr.deploy.serve.resources import (
    NOTICE,
    RESPONSES,
    Job,
    Probability,
    ServerResources,
    body_of,
)
from jaxcxr.xray.explain import explanation
from jaxcxr.xray.images import dicom, image_files
from jaxcxr.xray.images.films import Film

_SHOWN = 1024  # greatest side of a picture sent back, pixels
_BODY = body_of(
    "the content of a PNG, JPEG or DICOM file",
    "image/png", "image/jpeg", "application/dicom", "application/octet-stream",
)


class Finding(pydantic.BaseModel):
    """One class of the model."""

    name: str
    probability: Probability
    calibrated: bool = pydantic.Field(
        description="whether there were enough validation images to calibrate the probability"
    )
    threshold: float = pydantic.Field(description="least probability of a predicted finding")
    found: bool | None = pydantic.Field(
        description="whether the probability reaches the threshold; null if the image is flagged"
    )


class Header(pydantic.BaseModel):
    """Facts of a DICOM header that do not identify the patient."""

    view: str
    modality: str
    body_part: str
    photometric: str


class Radiograph(pydantic.BaseModel):
    """The prediction for an image."""

    notice: str = NOTICE
    model: str = pydantic.Field(description="SHA-256 of the bundle")
    status: Literal["ok", "flagged"] = pydantic.Field(
        description="flagged: unlike the frontal chest radiographs of the training data"
    )
    reason: str = pydantic.Field(description="why it is flagged")
    unusual: float = pydantic.Field(description="how unlike the training images it is")
    findings: list[Finding]
    dicom: Header | None
    picture: str | None = pydantic.Field(description="data URL of a PNG, if asked for")


class Radiographs:
    """The service of a bundle of radiographs.

    One image runs alone, more are padded to `batch`, so that the model compiles twice only.
    """

    def __init__(self, bundle: Bundle, resources: ServerResources, batch: int):
        self._bundle, self._resources, self._batch = bundle, resources, batch
        self._rows = Job(self._predict, batch)
        self._maps = Job(self._draw)
        blank = bundle.preprocessing.normalized(self._blank(1))
        self._method = explanation.method_for(bundle.explainer, blank)

    def warm(self) -> None:
        """Compiles everything."""
        (blank,) = self._blank(1)
        for count in {1, min(2, self._batch)}:
            self._predict([xray_predictor.Reading("", blank)] * count)
        self._draw([(blank, 0)])

    def facts(self) -> dict:
        """Returns facts for the page and for clients beside the bundle."""
        return {"heatmap": self._method, "thresholds": dict(
            zip(self._bundle.classes, self._bundle.thresholds.tolist(), strict=True)
        )}

    def add_routes(self, app: fastapi.FastAPI) -> None:
        """Adds `/api/findings` and `/api/heatmap`."""
        classes = Literal[self._bundle.classes]  # type: ignore[name-defined]  # known at run time

        @app.post(
            "/api/findings", response_model=Radiograph, responses=RESPONSES, openapi_extra=_BODY,
        )
        async def findings(
            request: Request,
            picture: Annotated[bool, Query(description="send the image back as well")] = False,
        ):
            """Findings in a radiograph, with their probabilities."""
            async with self._resources.gate.enter():
                reading, image = await self._read(request)
                row = await self._resources.worker.call(self._rows, reading)
                shown = await asyncio.to_thread(_picture, image) if picture else None
            return self._answer(row, shown)

        @app.post(
            "/api/heatmap", responses={
                200: {"content": {"image/png": {"schema": {"type": "string", "format": "binary"}}},
                      "description": "PNG with transparency, to lie over the image"},
                **RESPONSES,
            }, response_class=Response, openapi_extra=_BODY,
        )
        async def heatmap(
            request: Request,
            finding: Annotated[classes, Query(description="class to explain")],
        ):
            """Heat map of where the model looks for a finding; none of a flagged image."""
            async with self._resources.gate.enter():
                reading, _ = await self._read(request)
                row = await self._resources.worker.call(self._rows, reading)
                if row.reason:
                    raise unusable(f"flagged ({row.reason}): a heat map would mean nothing.")
                item = reading.pixels, self._bundle.classes.index(finding)
                one = await self._resources.worker.call(self._maps, item)
                return Response(await asyncio.to_thread(_colours, one), media_type="image/png")

    async def _read(self, request: Request) -> tuple[xray_predictor.Reading, np.ndarray]:
        """Reads a file; returns it preprocessed, and in 256 grays."""
        content = await self._resources.body(request)
        media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        kind = kind_of(content, media_type)
        if not kind:
            raise unsupported(
                "the body is no PNG, JPEG or DICOM file. Send the bytes of the file, as "
                "`curl --data-binary @FILE` does, not a form."
            )
        about, arrays = await self._resources.decoded(content, kind=kind)
        header = dicom.Header(**about["header"]) if about["header"] else None
        film = Film(arrays["pixels"], arrays.get("shown"))
        return await asyncio.to_thread(as_reading, self._bundle, film, header)

    def _answer(self, row: XrayPrediction, picture: str | None) -> Radiograph:
        assert row.probabilities is not None  # as the file was read and nothing is refused
        states = [None] * len(self._bundle.classes) if row.findings is None else row.findings
        calibrated = [one.method != "identity" for one in self._bundle.fitted[0].classes]
        values = zip(
            self._bundle.classes, row.probabilities, calibrated, self._bundle.thresholds,
            states, strict=True,
        )
        return Radiograph(
            model=self._bundle.digest, status="flagged" if row.reason else "ok", reason=row.reason,
            unusual=row.unusual, picture=picture,
            findings=[Finding(name=n, probability=p, calibrated=c, threshold=t, found=f)
                      for n, p, c, t, f in values],
            dicom=None if row.header is None else Header.model_validate(row.header),
        )

    def _blank(self, count: int) -> np.ndarray:
        size = self._bundle.image_size
        return np.zeros((count, size, size), np.uint8)

    def _predict(self, readings: list[xray_predictor.Reading]) -> list[XrayPrediction]:
        pixels = self._blank(1 if len(readings) == 1 else self._batch)
        pixels[: len(readings)] = [reading.pixels for reading in readings]
        launched = pixels[: len(readings)], self._bundle.forward(pixels)
        found = xray_predictor.rows(self._bundle, readings, launched, refuse=False)
        return [row for row, _ in found]

    def _draw(self, items: list[tuple[np.ndarray, int]]) -> list[np.ndarray]:
        pixels, classes = zip(*items, strict=True)
        return list(self._bundle.heatmaps(self._method, np.stack(pixels), np.array(classes)))


def as_reading(
    bundle: Bundle, film: Film, header: dicom.Header | None
) -> tuple[xray_predictor.Reading, np.ndarray]:
    """Prepares a film for the model; returns it in 256 grays beside that."""
    pixels = bundle.preprocess(film)
    return xray_predictor.Reading("", pixels, header, blank=film.blank), film.gray8


def _picture(image: np.ndarray) -> str:
    """Encodes an image as a data URL, shrunk if large."""
    scale = min(1.0, _SHOWN / max(image.shape))
    if scale < 1:
        size = [max(1, round(side * scale)) for side in image.shape[::-1]]
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return f"data:image/png;base64,{base64.b64encode(image_files.encode(image, 'png')).decode()}"


def _colours(heatmap: np.ndarray) -> bytes:
    """Encodes a map as PNG, more opaque where it is higher."""
    gray = np.round(255 * explanation.unit(heatmap)).astype(np.uint8)
    colours = cv2.applyColorMap(gray, cv2.COLORMAP_INFERNO)
    return cv2.imencode(".png", np.dstack([colours, gray]))[1].tobytes()
