"""Decoding of large images in a separate process: `python -m models.data.isolated SIDE GRAYSCALE FIT`.

The process reads the file from its standard input and writes the square's pixels to its standard output. It starts in
0.2 s, has a limit on its memory and its time, gives everything back, and ends with the request that it works for.
"""

import contextlib
import os
import resource
import signal
import sys
import tempfile
from typing import IO

import anyio
import numpy as np
from anyio import to_thread
from numpy.typing import NDArray

from models.data.decoding import ImageFile, decode_upright, open_image, to_channels
from models.errors import ImageError
from models.imports import module_command, own_packages_first
from models.preprocessing import Preprocessing

MODULE = "models.data.isolated"
MAX_SECONDS = 30
"""Limit on processor time, not on elapsed time, which depends on the machine's load."""
MAX_ADDRESS_SPACE = 2_000_000_000
"""Bytes. The largest pictures that are read take 0.5 GB (PNG), 0.8 (WebP) and 1.1 (progressive JPEG), measured."""
REFUSED = 3
"""Exit code of a refused image; the reason is on standard error."""


async def decode_isolated(image: ImageFile, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """As `decode_image`, in a process that is killed when the caller is cancelled.

    Raises ImageError as that does, and for a picture that takes more than MAX_SECONDS or MAX_ADDRESS_SPACE.
    """
    side, gray = preprocessing.source_size, preprocessing.grayscale
    command = module_command(MODULE, str(side), str(int(gray)), preprocessing.fit)
    with tempfile.TemporaryFile() as file:
        await to_thread.run_sync(_fill, file, image.data)
        done = await anyio.run_process(
            command, stdin=file, check=False, env={**own_packages_first(os.environ), "OPENBLAS_NUM_THREADS": "1"}
        )
    if done.returncode == REFUSED:
        raise image.error(done.stderr.decode())
    if done.returncode == -signal.SIGXCPU:
        raise image.error(f"took more than {MAX_SECONDS} s to decode")
    if done.returncode != 0:
        raise image.error("is damaged, or needs more memory than is given to one picture")
    square = np.frombuffer(done.stdout, dtype=np.uint8)
    return to_channels(square.reshape((side, side) if gray else (side, side, 3)), preprocessing.channels)


def _fill(file: IO[bytes], data: bytes) -> None:
    file.write(data)
    file.seek(0)


def main() -> int:
    """Decode standard input; 0, or REFUSED with the reason on standard error."""
    resource.setrlimit(resource.RLIMIT_CPU, (MAX_SECONDS, MAX_SECONDS + 1))
    with contextlib.suppress(ValueError, OSError):  # macOS does not take it
        resource.setrlimit(resource.RLIMIT_AS, (MAX_ADDRESS_SPACE, MAX_ADDRESS_SPACE))
    side, gray, fit = int(sys.argv[1]), sys.argv[2] == "1", sys.argv[3]
    try:
        square = decode_upright(open_image(sys.stdin.buffer.read()), side, grayscale=gray, fit=fit)
    except ImageError as error:
        sys.stderr.write(error.detail.removeprefix("image 1 "))
        return REFUSED
    sys.stdout.buffer.write(square.tobytes())
    return 0


if __name__ == "__main__":
    sys.exit(main())
