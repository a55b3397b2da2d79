"""The C library's allocator, where it can be told how to keep memory."""

import ctypes
import sys


def glibc() -> ctypes.CDLL | None:
    """The GNU C library, whose `mallopt` takes settings; None where there is another (macOS, musl)."""
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    return libc if hasattr(libc, "mallopt") and hasattr(libc, "gnu_get_libc_version") else None
