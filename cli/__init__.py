"""The command `transformer2017`: a file a verb, each a thin call into a room of the package."""

import importlib
import os
import sys
from collections.abc import Sequence

from transformer2017 import __version__
from transformer2017.configuration import RunError, Stopped, UsageError, in_a_line
from transformers.utils.logging import disable_progress_bar

# The verb, the module of this folder that runs it, and what it does. Modules are imported when they are called, so
# that `--help` and `translate` do not wait for what only training needs.
VERBS = {
    "demo": ("demo", "train from spelling to pronunciation in some minutes, and try it"),
    "train": ("train", "train a model on aligned text, and evaluate it meanwhile"),
    "doctor": ("doctor", "look at data, flags and model before a long run"),
    "budget": ("budget", "arithmetic, time, memory and cost of a run before it has data"),
    "translate": ("translate", "translate lines of standard input or files, a line out for each"),
    "evaluate": ("evaluate", "score a model's translations: BLEU and chrF as JSON"),
    "average": ("average", "average the weights of a run's last checkpoints (§6.1)"),
    "import": ("import_", "read a model of Marian, fairseq or torch, to use or fine-tune"),
    "export": ("export", "write a model for MarianMT, CTranslate2, ONNX, Argos or Marian"),
    "explain": ("explain", "see a sentence's translation from inside: a page, and figures"),
    "app": ("app", "a page on localhost to translate and look inside"),
}

USAGE = "usage: transformer2017 [-h] [--version] VERB ..."


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb.

    Args:
        argv: The words after the command's name; those of the process if None.

    Returns:
        The exit code: 0 done, 1 the work failed, 2 the flags or files given are at fault, 130 interrupted,
        143 terminated.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if not sys.stderr.isatty():
        disable_progress_bar()  # of transformers and of the Hub
        os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")  # read when a verb imports datasets
    try:
        return _run(words)
    except UsageError as error:
        return _say(error, 2)
    except RunError as error:
        return _say(error, 1)
    except Stopped as stopped:
        return _say(stopped, 128 + stopped.number)
    except KeyboardInterrupt:
        return _say("interrupted", 130)
    except BrokenPipeError:  # the reader of our output has left, as `head` does
        sys.stderr.close()
        return 0
    except OSError as error:  # a full disk, a folder that cannot be written: of the machine, not of the program
        return _say(f"{error.filename}: {error.strerror}" if error.filename else in_a_line(error), 1)


def _run(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        print(_help())
        return 0 if words else 2
    if words[0] == "--version":
        print(f"transformer2017 {__version__}")
        return 0
    verb, *rest = words
    if verb not in VERBS:
        raise UsageError(f"there is no verb {verb!r}; choose one of {', '.join(VERBS)}")
    return importlib.import_module(f"transformer2017.cli.{VERBS[verb][0]}").run(rest)


def _help() -> str:
    verbs = "\n".join(f"  {verb:<10} {summary}" for verb, (_, summary) in VERBS.items())
    return f"{USAGE}\n\nThe original Transformer, trained, used and shared.\n\nverbs:\n{verbs}\n\n" + (
        "transformer2017 VERB --help tells of one verb."
    )


def _say(message: object, code: int) -> int:
    print(f"transformer2017: {message}", file=sys.stderr)
    return code
