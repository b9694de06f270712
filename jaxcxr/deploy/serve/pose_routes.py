"""Serves 3D poses of 2D keypoints, as numbers and as a page of the 3D viewer."""

import asyncio
import pathlib
from typing import Annotated, Literal

import fastapi
import numpy as np
import pydantic
from fastapi import Query, Request
from fastapi.responses import HTMLResponse

from jaxcxr.deploy.bundle.bundled_model import Bundle
from jaxcxr.deploy.predict.lifter import Lifter
from jaxcxr.deploy.serve.resources import NOTICE, RESPONSES, Job, ServerResources, body_of
from jaxcxr.pose.formats.prediction_files import AXES, MM, Person
from jaxcxr.pose.geometry import joint_sets
from jaxcxr.pose.geometry.skeletons import HUMAN36M
from jaxcxr.pose.keypoints import frame_numbers, gaps
from jaxcxr.pose.keypoints.keypoint_files import Track, Video
from jaxcxr.pose.player import rendering
from jaxcxr.pose.player.motions import Take

_LARGEST = 100_000  # pixels a side
_BODY = body_of(
    "the content of a JSON file of 2D keypoints of a whole video: COCO's results or annotations, "
    "or AlphaPose's", "application/json", "application/octet-stream",
)


def _rate(value):
    """Reads a rate; leaves anything else to be refused as no number."""
    try:
        return frame_numbers.rate(value)
    except ValueError:
        return value


Point = Annotated[list[float], pydantic.Field(min_length=3, max_length=3)]
Fps = Annotated[
    float, pydantic.BeforeValidator(_rate), Query(
        ge=1, le=1000, description="frames per second of the video, such as 25 or 30000/1001"),
]
Rotate = Annotated[
    Literal["", "0", "90", "180", "270"],
    Query(description="clockwise turn that brings the image upright, degrees"),
]
Side = Annotated[
    int | None, Query(ge=1, le=_LARGEST, description="of the image, pixels, if the file has none")
]
Joints = Annotated[
    Literal["", *joint_sets.JOINT_SETS],  # type: ignore[valid-type]  # known at run time
    Query(description="joint set of the points; by default derived from their number"),
]


Body = Annotated[list[Point], pydantic.Field(min_length=17, max_length=17)]


State = Literal["absent", "filled", "seen"]


class Pose(pydantic.BaseModel):
    """One person."""

    person: str
    start: int = pydantic.Field(description="first frame of the poses", ge=0)
    state: list[State] = pydantic.Field(
        description="of each frame: found by the detector, interpolated, or in a long gap")
    poses: list[Body | None] = pydantic.Field(description="null where absent")


class Poses(pydantic.BaseModel):
    """The poses of a video."""

    notice: str = NOTICE
    model: str = pydantic.Field(description="SHA-256 of the bundle")
    fps: float = pydantic.Field(description="poses per second")
    step: int = pydantic.Field(1, description="frames of the video from pose to pose")
    notes: list[str] = pydantic.Field(
        [], description="what was read differently from what it says, or not at all")
    unit: Literal["mm"] = "mm"
    axes: str = AXES
    joints: list[str] = list(HUMAN36M.joints)
    people: list[Pose]


class Lifting:
    """The service of a bundle of poses."""

    def __init__(self, bundle: Bundle, resources: ServerResources):
        self._bundle, self._resources = bundle, resources
        self._lifter = Lifter(bundle)
        self._job = Job(self._lift)

    def warm(self) -> None:
        """Compiles the model."""
        blank = Track("0", 0, np.zeros((1, 17, 2)), np.zeros((1, 17), np.float32))
        self._lift([Video(pathlib.Path(), self._fps, (1, 1), "human36m", (blank,))])

    def facts(self) -> dict:
        """Returns facts for the page and for clients beside the bundle."""
        return {"frames": self._lifter.about["training_frames"], "fps": self._fps,
                "joint_sets": list(joint_sets.JOINT_SETS)}

    @property
    def _fps(self) -> float:
        return self._lifter.about["training_fps"]

    def add_routes(self, app: fastapi.FastAPI) -> None:
        """Adds `/api/poses` and `/api/player`."""

        @app.post("/api/poses", response_model=Poses, responses=RESPONSES, openapi_extra=_BODY)
        async def poses(
            request: Request, fps: Fps, width: Side = None, height: Side = None,
            joints: Joints = "", rotate: Rotate = "",
        ):
            """3D poses of every person, in millimetres relative to the hip."""
            async with self._resources.gate.enter():
                video = await self._read(request, fps, width, height, joints, rotate)
                people = await self._resources.worker.call(self._job, video)
            return Poses(
                model=self._bundle.digest, fps=video.fps, step=video.step,
                notes=list(video.notes), people=[_pose(one) for one in people],
            )

        @app.post(
            "/api/player", response_class=HTMLResponse, responses=RESPONSES, openapi_extra=_BODY,
        )
        async def player(
            request: Request, fps: Fps, width: Side = None, height: Side = None,
            joints: Joints = "", rotate: Rotate = "",
        ):
            """The same poses as a page of the 3D viewer."""
            async with self._resources.gate.enter():
                video = await self._read(request, fps, width, height, joints, rotate)
                people = await self._resources.worker.call(self._job, video)
                return HTMLResponse(await asyncio.to_thread(_page, video, people))

    async def _read(self, request, fps, width, height, joints, rotate) -> Video:
        content = await self._resources.body(request)
        size = None if width is None or height is None else (width, height)
        about, arrays = await self._resources.decoded(
            content, kind="keypoints", fps=fps, size=size, joints=joints, training_fps=self._fps,
            rotate=int(rotate) if rotate else None,
        )
        tracks = tuple(
            Track(person, start, arrays[f"keypoints{i}"], arrays[f"confidence{i}"],
                  arrays[f"state{i}"])
            for i, (person, start) in enumerate(about["tracks"])
        )
        width, height = about["size"]
        video = Video(pathlib.Path("the file"), about["fps"], (width, height), about["joint_set"],
                      tracks, about["step"], tuple(about["notes"]))
        self._lifter.check(video, tracks)
        return video

    def _lift(self, videos: list[Video]) -> list[list[Person]]:
        return [self._lifter.lift(video, video.tracks) for video in videos]


_STATES: tuple[State, ...] = ("absent", "filled", "seen")  # as in `gaps.STATES`


def _pose(one: Person) -> Pose:
    there = one.track.states != gaps.ABSENT
    poses = [pose if seen else None for pose, seen in zip(
        np.round(np.nan_to_num(one.joints) * MM, 2).tolist(), there, strict=True)]
    return Pose(
        person=one.track.person, start=one.track.start, poses=poses,
        state=[_STATES[state] for state in one.track.states],
    )


def _page(video: Video, people: list[Person]) -> str:
    takes = []
    for person in people:
        track = person.track
        points = np.concatenate([track.keypoints, track.known[..., None]], -1)
        takes.append(Take(
            f"person {track.person}", video.fps, track.start,
            (person.joints * MM).astype(np.float32), keypoints=points.astype(np.float32),
            size=video.size_of(track), state=track.states,
        ))
    return rendering.page(takes, "3D poses")
