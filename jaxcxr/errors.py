"""The one error type that stands for a user's mistake."""


class UserError(Exception):
    """A mistake that the user can mend: the message says what, where, and what to do.

    The command line prints the message on one line and exits with code 2, without a traceback
    unless `--debug` is given.
    """
