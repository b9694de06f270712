"""Shows the progress of a preparation: a bar in a terminal, a line now and then elsewhere."""

import time

import rich.console
import rich.progress

_SECONDS_BETWEEN_LINES = 10.0


def say(message: str) -> None:
    """Prints one line for the user on the error stream, where progress goes."""
    rich.console.Console(stderr=True).print(message, highlight=False, markup=False, soft_wrap=True)


class Progress:
    """Counts finished items and shows speed and time left; a context manager.

    Arguments:
      label: name of the work.
      total: number of items.
      done: items finished earlier, which do not count towards the speed.
      brief: print no last line for work that took only seconds.
    """

    def __init__(self, label: str, total: int, done: int = 0, brief: bool = False):
        self._label, self._total, self._before, self._done = label, total, done, done
        self._bad, self._brief, self._said = 0, brief, done
        self._bar: rich.progress.Progress | None = None

    def __enter__(self) -> "Progress":
        self._start = self._spoken = time.monotonic()
        console = rich.console.Console(stderr=True)
        if self._before:
            say(f"{self._label}: going on after {self._before} of {self._total} already made")
        if console.is_terminal:
            columns = (
                rich.progress.TextColumn("{task.description}"),
                rich.progress.BarColumn(),
                rich.progress.MofNCompleteColumn(),
                rich.progress.TextColumn("{task.fields[speed]}"),
                rich.progress.TimeRemainingColumn(elapsed_when_finished=True),
            )
            self._bar = bar = rich.progress.Progress(*columns, console=console)
            self._task = bar.add_task(
                self._label, total=self._total, completed=self._before, speed=""
            )
            bar.start()
        return self

    def __exit__(self, *exc_info) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif self._said < self._done and not (self._brief and self._spoken == self._start):
            self._speak()

    def advance(self, items: int, bad: int = 0) -> None:
        """Counts `items` more as finished; `bad` is the number of bad items so far."""
        self._done += items
        self._bad = bad
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done, speed=self._speed_text())
        elif time.monotonic() - self._spoken > _SECONDS_BETWEEN_LINES:
            self._speak()

    def _speak(self) -> None:
        self._spoken, self._said = time.monotonic(), self._done
        say(self._line())

    def _speed(self) -> float:
        return (self._done - self._before) / max(time.monotonic() - self._start, 1e-9)

    def _speed_text(self) -> str:
        return f"{self._speed():.1f}/s" + (f", {self._bad} bad" if self._bad else "")

    def _line(self) -> str:
        left = (self._total - self._done) / max(self._speed(), 1e-9)
        ending = f", {left:.0f} s left" if self._done < self._total else ""
        return f"{self._label}: {self._done}/{self._total}, {self._speed_text()}{ending}"
