"""Lines of files and of standard input, whatever bytes they hold."""

import gzip
import sys
import zlib
from collections.abc import Iterator
from typing import BinaryIO, TextIO

from transformer2017.configuration import UsageError, in_a_line


def open_bytes(path: str) -> BinaryIO | TextIO:
    """Opens a file to read, a compressed one (test.en.gz) too, or standard input for -.

    Raises:
        UsageError: If there is no such file.
    """
    if path == "-":
        return getattr(sys.stdin, "buffer", sys.stdin)
    try:
        return gzip.open(path) if path.endswith(".gz") else open(path, "rb")
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
            for number, line in enumerate(_unpacked(file)):
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


def _unpacked(file: BinaryIO | TextIO) -> Iterator[bytes | str]:
    """The lines of a file; an error that says so where a compressed one is cut or damaged."""
    try:
        yield from file
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UsageError(f"{file.name!r} cannot be read: {in_a_line(error)}") from error


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
