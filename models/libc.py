"""Access to glibc's malloc settings (mallopt)."""

import ctypes
import sys


def glibc() -> ctypes.CDLL | None:
    """Load the GNU C library, which has `mallopt`; None with another C library (macOS, musl)."""
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    return libc if hasattr(libc, "mallopt") and hasattr(libc, "gnu_get_libc_version") else None
