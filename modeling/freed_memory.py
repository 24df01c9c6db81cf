"""Memory that is freed stays with the process, which otherwise faults in the pages of every large tensor anew."""

import ctypes
import platform

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of glibc's malloc.h
LARGEST_MMAP_THRESHOLD = 32 * 2**20  # what every glibc allows: a larger one may be refused


def keep_freed_memory() -> bool:
    """Has glibc keep freed memory, for the whole process.

    It is what MALLOC_TRIM_THRESHOLD_ and MALLOC_MMAP_THRESHOLD_ do when they are set before a process starts; here the
    user need not know of them. Call it before the first large tensor is made.

    Returns:
        Whether the C library took both settings; False where it is not glibc.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD) and mallopt(TRIM_THRESHOLD, 2**31 - 1))
