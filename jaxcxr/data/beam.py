"""Makes records with Apache Beam, on a cluster: `jaxcxr prepare SOURCE --beam="--runner=..."`.

    pip install 'jaxcxr[beam]'
    jaxcxr prepare chestxray14 --raw /nfs/raw --out /nfs/prepared \\
        --beam="--runner=FlinkRunner --flink_master=HOST:8081 --environment_type=LOOPBACK"

Beam's workers only make the chunks of `jaxcxr.data.staging`; one process writes the shards from
them. So the order of records and the budget of bad images stay the same, a failed run goes on with
the chunks it left (TFDS's own Beam writer offers none of this), and no image travels through the
runner's shuffle. Every worker must see the raw and the prepared data under the same paths.
"""

import concurrent.futures
import contextlib
import functools
import io
import os
import pathlib
import shlex
import threading
import time
from collections.abc import Iterator

import apache_beam as beam
import cv2
from apache_beam.options import pipeline_options

from jaxcxr.data import progress, staging
from jaxcxr.errors import RunError, UserError, nearest

_SECONDS_BETWEEN_LOOKS = 0.5
_SECONDS_LATE = 60.0  # a network file system can show a new file as late as this
_SECONDS_TO_STOP = 60.0


def maker(options: str) -> staging.Make:
    """Returns the function that makes chunks with Apache Beam, for `staging.made_by`.

    Arguments:
      options: command-line options of the runner, in one string; without --runner, Beam's default
        runner works on this machine.

    Raises:
      UserError: Beam does not know an option, or refuses its value.
    """
    parsed = _parsed(options)
    try:
        beam.Pipeline(options=parsed)  # refuses what does not fit together
    except Exception as error:
        raise UserError(f"--beam={options!r}: {_sentence(error)}") from error
    return functools.partial(_make, parsed)


def _parsed(options: str) -> pipeline_options.PipelineOptions:
    try:
        words = shlex.split(options)
    except ValueError as error:
        raise UserError(f"--beam={options!r}: {error}") from error
    messages = io.StringIO()
    try:
        with contextlib.redirect_stderr(messages):
            parsed = pipeline_options.PipelineOptions(words)
            every = parsed.get_all_options(retain_unknown_options=True)
            known = pipeline_options.PipelineOptions([]).get_all_options()
    except SystemExit:
        last = messages.getvalue().strip().splitlines()[-1]
        raise UserError(f"--beam={options!r}: {last.partition('error: ')[2] or last}") from None
    # A job server can have options of its own, which it checks itself.
    if not every.get("job_endpoint"):
        for name in every.keys() - known.keys():
            close = nearest(name, known)
            hint = f"; did you mean --{close}?" if close else ""
            raise UserError(f"--beam={options!r}: Beam has no option --{name}{hint}")
    for word in words[:1]:
        if not word.startswith("--"):
            raise UserError(f"--beam={options!r}: {word!r} is no option; write --name=value")
    return parsed


def _make(options, encode: staging.Encode, tasks: list[staging.Task]) -> Iterator[tuple[int, dict]]:
    """Runs a pipeline over the tasks; yields each chunk when its summary appears on disk."""
    if not tasks:
        return
    stop = tasks[0][1].parent / "stop"
    stop.unlink(missing_ok=True)
    for _, path in tasks:
        path.with_suffix(".json").unlink(missing_ok=True)  # of a chunk with bad records
    waiting = {path.with_suffix(".json").name: i for i, (_, path) in enumerate(tasks)}
    pipeline: concurrent.futures.Future = concurrent.futures.Future()
    # A daemon: a runner that waits for its cluster for ever must not keep this process alive.
    work = functools.partial(_run, options, encode, tasks, stop)
    threading.Thread(target=_finish, args=(pipeline, work), daemon=True).start()
    try:
        for name in _appearing(waiting.keys(), stop.parent, pipeline):
            index = waiting[name]
            summary = staging.read_summary(tasks[index][1])
            if summary is None:
                raise RunError(
                    f"{tasks[index][1]} is not what its summary tells; run the same command again"
                )
            yield index, summary
    finally:
        if not pipeline.done():
            _stop(pipeline, stop)


def _stop(pipeline: concurrent.futures.Future, stop: pathlib.Path) -> None:
    """Ends a pipeline early by a file that all workers see: not every runner can cancel."""
    stop.touch()
    progress.say("waiting for Beam's workers to finish the chunks at hand")
    if concurrent.futures.wait([pipeline], timeout=_SECONDS_TO_STOP).done:
        stop.unlink(missing_ok=True)


def _finish(future: concurrent.futures.Future, work) -> None:
    try:
        future.set_result(work())
    except BaseException as error:
        future.set_exception(error)


def _appearing(names, folder: pathlib.Path, pipeline: concurrent.futures.Future) -> Iterator[str]:
    """Yields the names of files as they appear in a folder, until all are there."""
    waiting, deadline = set(names), None
    while waiting:
        concurrent.futures.wait([pipeline], timeout=_SECONDS_BETWEEN_LOOKS)
        ended = pipeline.done()  # asked before looking: what it wrote is there
        there = waiting & set(os.listdir(folder))
        yield from there
        waiting -= there
        if not ended or not waiting:
            continue
        pipeline.result()
        deadline = deadline or time.monotonic() + _SECONDS_LATE
        if time.monotonic() >= deadline:
            raise UserError(
                f"Beam's workers finished, but {len(waiting)} of {len(names)} chunks are not in "
                f"{folder}: give a folder with --out that all workers see under the same path."
            )
        time.sleep(_SECONDS_BETWEEN_LOOKS)


def _run(options, encode: staging.Encode, tasks: list[staging.Task], stop: pathlib.Path) -> None:
    try:
        pipeline = beam.Pipeline(options=options)
        chunks = pipeline | "Tasks" >> beam.Create(tasks) | "Spread" >> beam.Reshuffle()
        _ = chunks | "Make" >> beam.ParDo(_MakeChunk(encode, stop))
        state = pipeline.run().wait_until_finish()
    except Exception as error:
        raise RunError(
            f"the Beam pipeline failed: {_sentence(error)} (what is finished is kept: the same "
            "command goes on; --debug shows all)"
        ) from error
    if state not in (None, beam.runners.runner.PipelineState.DONE):
        raise RunError(f"the Beam pipeline ended as {state}; its runner's log tells why")


class _MakeChunk(beam.DoFn):
    """Makes one chunk; only its summary on disk reports it."""

    def __init__(self, encode: staging.Encode, stop: pathlib.Path):
        self._encode, self._stop = encode, stop

    def setup(self):
        cv2.setNumThreads(1)  # the workers are the parallelism

    def process(self, task: staging.Task):
        if not self._stop.exists():
            staging.encode_chunk(self._encode, *task)


def _sentence(error: Exception) -> str:
    """Returns the last line of a message; before it Beam puts a worker's traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
