"""Lines of files and of standard input, whatever bytes they hold."""

import sys
from collections.abc import Iterator
from typing import BinaryIO, TextIO

from transformer2017.configuration import UsageError


def open_bytes(path: str) -> BinaryIO | TextIO:
    """Opens a file to read, or standard input for -.

    Raises:
        UsageError: If there is no such file.
    """
    if path == "-":
        return getattr(sys.stdin, "buffer", sys.stdin)
    try:
        return open(path, "rb")
    except OSError as error:
        raise UsageError(f"{path!r} cannot be read: {error.strerror}") from error


class Lines:
    """The lines of files, without their ends. Only a line feed ends a line, as for `wc`.

    Bytes that are not UTF-8 become replacement characters, so that one faulty line does not end the work.
    """

    def __init__(self, files: list[BinaryIO | TextIO]) -> None:
        self.files = files
        self.faulty: list[int] = []  # numbers of lines with bytes that are not UTF-8

    def __iter__(self) -> Iterator[str]:
        count = 0
        for file in self.files:
            for number, line in enumerate(file):
                count += 1
                text = line if isinstance(line, str) else line.decode("utf-8", "replace")
                if isinstance(line, bytes) and "\ufffd" in text and not _is_utf8(line):
                    self.faulty.append(count)
                yield (text.removeprefix("\ufeff") if number == 0 else text).rstrip("\r\n")

    def tell(self) -> None:
        """Says on standard error what was faulty."""
        if self.faulty:
            print(
                f"transformer2017: {len(self.faulty)} lines are not UTF-8 (the first is line {self.faulty[0]}): their "
                "faulty bytes were read as \ufffd",
                file=sys.stderr,
            )


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
