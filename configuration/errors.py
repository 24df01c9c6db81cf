"""What a user is told: an error is one sentence that names the file, line or flag, and what to do."""


class _InALine(Exception):
    """What the sentence takes from a file, such as names of columns, may hold line breaks: they become spaces."""

    def __init__(self, sentence: str) -> None:
        super().__init__(" ".join(sentence.split()))


class UsageError(_InALine, ValueError):
    """The flags or the files given are at fault. The command line prints the sentence and exits with 2."""


class RunError(_InALine, RuntimeError):
    """The work could not be finished (a full disk, a loss that is not a number). The command line exits with 1."""


class Stopped(KeyboardInterrupt):
    """A signal ended the work. The command line exits with 128 and its number: 130 for SIGINT, 143 for SIGTERM."""

    def __init__(self, number: int, sentence: str = "interrupted") -> None:
        super().__init__(sentence)
        self.number = number


def in_a_line(error: BaseException | str, most: int = 200) -> str:
    """What another library's error or a file says, as part of a sentence: in one line, and not endless."""
    words = " ".join(str(error).split()) or type(error).__name__
    return words if len(words) <= most else words[:most] + " ..."
