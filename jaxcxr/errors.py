"""Errors that the command line shows as one sentence instead of a traceback, and their wording."""

import difflib
from collections.abc import Iterable

# Exit code of a run that was asked to stop and saved: start it again to finish it (EX_TEMPFAIL).
UNFINISHED = 75

_NAMED = 5  # of many names, in a message


class UserError(Exception):
    """A mistake that the user can fix: the message says what, where, and what to do.

    The command line prints the message and exits with code 2; `--debug` adds the traceback.
    """


class BadRecord(UserError):
    """An image or recording that cannot be read; the message names the file and says why."""


class RunError(Exception):
    """A failure that is no mistake of the user: the loss is not finite, the disk is full.

    The command line prints the message and exits with code 1; `--debug` adds the traceback.
    """


def nearest(word: str, known: Iterable, cutoff: float = 0.6) -> str:
    """Finds the known word most like this one; "" if none is similar.

    Arguments:
      word: as the user wrote it.
      known: the words that exist, or objects that `str` turns into words.
      cutoff: least similarity, from 0 to 1, see `difflib.get_close_matches`.
    """
    return next(iter(difflib.get_close_matches(word, map(str, known), n=1, cutoff=cutoff)), "")


def did_you_mean(word: str, known: Iterable, cutoff: float = 0.6) -> str:
    """Ends a message about an unknown word with the nearest known one, or with nothing."""
    close = nearest(word, known, cutoff)
    return f" Did you mean {close!r}?" if close else ""


def nearest_or_known(word: str, known: Iterable) -> str:
    """Ends a message about an unknown word with the nearest known one, or with all of them."""
    known = [str(k) for k in known]
    return did_you_mean(word, known, 0.5) or f" Known: {', '.join(known)}."


def some(names: Iterable[str]) -> str:
    """Joins the first of many names, for messages."""
    names = list(names)
    return ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")


def counted(number: int, one: str, several: str = "") -> str:
    """Words a count, such as "1 file" and "1,200 files".

    Arguments:
      number: how many.
      one: what follows a 1, such as "file" or "person is".
      several: what follows any other number; "": `one` and an s.
    """
    return f"{number:,} {one if number == 1 else several or f'{one}s'}"
