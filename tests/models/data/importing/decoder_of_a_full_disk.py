"""A decoder on whose disk there is no room, although it was reserved: some file systems do not keep that promise."""

import resource
import sys

from models.data.decoder_process import main

if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))
    sys.exit(main())
