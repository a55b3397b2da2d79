"""classify.py IMAGE...: label and probabilities of image files. Needs onnxruntime and Pillow alone."""

import contextlib
import json
import sys
from pathlib import Path

import numpy as np  # comes with onnxruntime
import onnxruntime
from PIL import Image, ImageOps

SEEN, LABELS = (json.loads(Path(__file__).with_name(f"{n}.json").read_bytes()) for n in ("preprocessing", "labels"))
SIDE, MODE, FIT = SEEN["source_size"], "L" if SEEN["grayscale"] else "RGB", SEEN["fit"]
NETWORK = onnxruntime.InferenceSession(Path(__file__).with_name("network.onnx"), providers=["CPUExecutionProvider"])


def read(path):  # an image as the network takes it: its first frame, upright, on white, made a square
    exif = (image := Image.open(path)).info.get("exif", b"")
    image.draft(None, (3 * SIDE, 3 * SIDE))
    if image.mode.startswith("I;16"):
        image = Image.fromarray(((np.asarray(image).astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8))
    elif image.has_transparency_data:
        clear, image = image.convert("RGBA"), Image.new("RGB", image.size, "white")
        image.paste(clear, mask=clear.getchannel("A"))
    left, top = ((length - min(image.size)) / 2 if FIT == "crop" else 0 for length in image.size)
    box = (left, top, image.width - left, image.height - top)
    size = [max(1, round(SIDE / max(image.size) * length)) if FIT == "pad" else SIDE for length in image.size]
    inner = image.convert("RGB").convert(MODE).resize(size, Image.Resampling.BILINEAR, box)
    square = Image.new(MODE, (SIDE, SIDE))
    square.paste(inner, ((SIDE - size[0]) // 2, (SIDE - size[1]) // 2))
    square.info["exif"] = exif
    with contextlib.suppress(Exception):  # damaged EXIF: as if there were none
        square = ImageOps.exif_transpose(square)
    return np.asarray(square.convert("RGB")).transpose(2, 0, 1)[: SEEN["channels"]]


for name in sys.argv[1:] or sys.exit(__doc__):
    logits = NETWORK.run(["logits"], {"images": read(name)[None]})[0][0].astype(np.float64)
    p = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    print(json.dumps({"image": name, "label": LABELS[int(p.argmax())], "probabilities": p.tolist()}))
