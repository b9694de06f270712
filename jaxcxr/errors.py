"""Errors that the command line shows as one sentence instead of a traceback."""


class UserError(Exception):
    """A mistake that the user can mend: the message says what, where, and what to do.

    The command line prints the message and exits with code 2; `--debug` adds the traceback.
    """


class RunError(Exception):
    """A run that cannot go on, through nobody's typing: the loss is not finite, the disk is full.

    The command line prints the message and exits with code 1; `--debug` adds the traceback.
    """
