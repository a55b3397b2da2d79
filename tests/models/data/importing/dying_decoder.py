"""The decoder's process with a fault: it ends when it meets certain files, as a decoder with a bug would."""

import os
import sys

from models.data import decoder_process
from models.data.decoder_process import Decoder, File, Outcome

DEADLY = b"deadly"

if __name__ == "__main__":
    decode = Decoder.decode

    def die(self: Decoder, file: File) -> Outcome:
        """Decode, unless the file says otherwise."""
        if file.data == DEADLY:
            os._exit(11)
        return decode(self, file)

    Decoder.decode = die  # type: ignore[method-assign]
    sys.exit(decoder_process.main())
