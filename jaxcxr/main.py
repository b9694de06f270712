"""The entry: `python -m jaxcxr.main --config=FILE[:ARG] --workdir=DIR [--config.a.b=VALUE ...]`."""

import errno
import re
import sys

from absl import flags
from ml_collections import config_flags

from jaxcxr import registry
from jaxcxr.errors import UNFINISHED, RunError, UserError, did_you_mean
from jaxcxr.train import distributed, runtime

# JAX and the trainer are imported inside functions: processes that generate data import this
# module again, and they need neither.

_CONFIG = config_flags.DEFINE_config_file("config", None, "experiment, FILE[:ARG]")
_WORKDIR = flags.DEFINE_string("workdir", None, "folder of the run")
_MODE = flags.DEFINE_enum("mode", "train", ("train", "evaluate"), "what to do")
_DISTRIBUTED = flags.DEFINE_enum(
    "distributed", "auto", ("auto", "on", "off"),
    "several processes: auto joins them where the environment names them, see launch/",
)
_START = flags.DEFINE_float("start_timeout", 300.0, "seconds to wait for all processes", 1.0)
_LOST = flags.DEFINE_float("lost_timeout", 100.0, "seconds after which a silent process is lost", 5)
_DEBUG = flags.DEFINE_bool("debug", False, "show tracebacks")


def main(argv) -> None:
    """Trains or evaluates, as the flags say.

    Arguments:
      argv: program name and arguments that are no flags; more than the name is an error.

    Raises:
      UserError: a mistake in the flags or what they name.
    """
    from jaxcxr import config as config_lib
    from jaxcxr.train import loop, runtime, writers
    from jaxcxr.train import workdir as workdir_lib

    if len(argv) > 1:
        raise UserError(f"unexpected argument {argv[1]!r}; overrides look like --config.seed=1.")
    if not _WORKDIR.value:
        raise UserError("--workdir is missing; give the folder of the run, e.g. runs/demo.")
    workdir = workdir_lib.parse(_WORKDIR.value)
    config = _config(workdir)
    config_lib.validate(config)
    runtime.enable_cache()
    distributed.start(_DISTRIBUTED.value, _START.value, _LOST.value)
    screen = writers.Screen()
    if _MODE.value == "train":
        if loop.train(config, workdir, screen) is None:
            sys.exit(UNFINISHED)
    else:
        loop.evaluate(config, workdir, screen)


def _config(workdir):
    from jaxcxr import config as config_lib
    from jaxcxr.train import checkpoint

    if _CONFIG.value is not None:
        return _CONFIG.value
    if _MODE.value == "evaluate":
        return config_lib.from_saved(checkpoint.load_config(workdir))
    raise UserError("--config is missing; give a file, e.g. --config=configs/demo.py.")


def load_config(argv: list[str]):
    """Returns the validated config of `--config=FILE[:ARG] --config.a.b=VALUE ...`.

    Arguments:
      argv: such arguments, without a program name.

    Raises:
      UserError: a mistake in them.
    """
    from jaxcxr import config as config_lib

    extra = parse_flags(["jaxcxr", *argv])[1:]
    if extra:
        raise UserError(f"unexpected argument {extra[0]!r}; overrides look like --config.seed=1.")
    if _CONFIG.value is None:
        raise UserError("--config is missing; give a file, e.g. --config=configs/demo.py.")
    config_lib.validate(_CONFIG.value)
    return _CONFIG.value


def parse_flags(argv: list[str]) -> list[str]:
    """Parses the command line; a mistake ends the program with one line and exit code 2."""
    if {"--help", "-h"} & set(argv[1:]):
        print(usage())
        sys.exit(0)
    try:
        rest = flags.FLAGS(argv)
        if _CONFIG.value is not None:
            _CONFIG.value.get("task")  # a file that could not be read fails only here
        return rest
    except (flags.Error, LookupError, AttributeError, ImportError, NameError, SyntaxError,
            TypeError, ValueError, OSError, UserError) as error:
        if "--debug" in argv:
            raise
        _complain(_one_line(error))
        sys.exit(2)


def usage() -> str:
    """Returns the text of `--help`."""
    names = ("config", "workdir", "mode", "distributed", "start_timeout", "lost_timeout", "debug")
    rows = "\n".join(f"  --{name:<15}{flags.FLAGS[name].help}" for name in names)
    return f"{__doc__}\n\n{rows}\n\nEvery key of the config is a flag: --config.batch_size=16."


def _one_line(error: Exception) -> str:
    """Returns the message of a flag or config file error, without the file's traceback."""
    while error.args and isinstance(error.args[0], Exception):
        error = error.args[0]
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    lines = [line.strip() for line in text.splitlines() if line.strip()] or [repr(error)]
    if "Error whilst parsing config file" in lines[0]:
        lines = [lines[-1].removeprefix("jaxcxr.errors.UserError: ")]
    if "Failed loading config file" in lines[0]:
        return f"cannot read the config file: {lines[-1]}"
    key = re.match(r"(?:Key )?['\"](\w+)['\"]", lines[0])
    if isinstance(error, KeyError) and key:
        return f"the config has no key {key[1]!r}.{_nearest_key(key[1], lines[-1])}"
    return " ".join(lines)


def _nearest_key(key: str, hint: str) -> str:
    """Suggests a key: the one in the config's own message, or the nearest of all keys."""
    from jaxcxr import config as config_lib

    if meant := re.match(r'Did you mean "(\w+)"', hint):
        return did_you_mean(meant[1], meant.groups())
    known = {
        part for task in registry.TASKS for path in config_lib.flatten(config_lib.default(task))
        for part in path.split(".")
    }
    return did_you_mean(key, sorted(known), 0.5)


def run(argv: list[str] | None = None) -> None:
    """Runs `main`; turns errors into one clear message and an exit code.

    Exit codes: 0 done; 1 the run failed; 2 a user's mistake; 75 saved after SIGTERM, not done.

    Arguments:
      argv: program name and arguments; sys.argv by default.
    """
    argv = parse_flags(sys.argv if argv is None else argv)
    with distributed.report_end():
        _run(argv)


def _run(argv: list[str]) -> None:
    try:
        main(argv)
    except UserError as error:
        _fail(error, 2, str(error))
    except RunError as error:
        _fail(error, 1, str(error))
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        _fail(error, 1, "the disk is full; free space and run the same command again to resume.")
    except RuntimeError as error:  # JAX's runtime errors are RuntimeErrors
        _fail_runtime(error)


def _fail_runtime(error) -> None:
    text = str(error)
    if "RESOURCE_EXHAUSTED" in text:
        _fail(error, 2, "the device is out of memory; lower --config.batch_size, raise "
                        "--config.accumulate, or use more devices.")
    if "No space left" in text:
        _fail(error, 1, "the disk is full; free space and run the same command again to resume.")
    raise error


def _fail(error, code: int, message: str) -> None:
    if _DEBUG.value:
        raise error
    _complain(message)
    sys.exit(code)


def _complain(message: str) -> None:
    print(f"jaxcxr: {message}", file=sys.stderr)


if __name__ == "__main__":
    runtime.restart_with_huge_pages()
    run()
