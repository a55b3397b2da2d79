"""Requests and answers of the Open Inference Protocol, version 2: tensors as JSON, or as bytes behind the JSON.

https://github.com/kserve/open-inference-protocol, and the extension "binary tensor data" of
https://github.com/triton-inference-server/server/tree/main/docs/protocol. A model has one input, `images`, which takes
encoded images (BYTES) or pixels (UINT8 from 0 to 255, FP32 from 0 to 1).
"""

import base64
import binascii
import io
import json
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.plain import JsonObject, is_unicode
from models.preprocessing import Preprocessing
from service.http.errors import BadRequest, shown
from service.http.uploads import MAX_IMAGES, Upload

INPUT = "images"
PROBABILITIES, LABELS = "probabilities", "labels"
CALIBRATED, KNOWN = "calibrated_probabilities", "known"
OUTPUTS = (PROBABILITIES, LABELS)
FITTED_OUTPUTS = (*OUTPUTS, CALIBRATED, KNOWN)
"""The outputs of weights that have a calibration."""
HEADER_LENGTH = "Inference-Header-Content-Length"
MAX_JSON_BYTES = 8_000_000
"""The most bytes of JSON: parsing blocks all Python threads, for 0.1 s at this size. Binary data does not count."""
MAX_ID = 1000


@dataclass(frozen=True, slots=True)
class Output:
    """A requested output tensor, and whether as binary data."""

    name: str
    binary: bool


@dataclass(frozen=True, slots=True)
class Inference:
    """A parsed inference request."""

    id: str | None
    images: list[Upload]
    outputs: list[Output]


def pixel_shape(wanted: Preprocessing) -> tuple[int, int, int]:
    """(channels, height, width) of a model's input pixels: one channel for networks of gray images."""
    channels = 1 if wanted.grayscale else wanted.channels
    return channels, wanted.source_size, wanted.source_size


def read_inference(
    body: bytes, header_length: str | None, wanted: Preprocessing, names: Sequence[str] = OUTPUTS
) -> Inference:
    """A request's images, in order, and which of the outputs `names` it wants. Raises BadRequest."""
    document, rest = _split(body, header_length)
    inputs = document.get("inputs")
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        count = f"{len(inputs)} entries" if isinstance(inputs, list) else "no list"
        raise BadRequest(f"'inputs' is {count}; this model takes one input tensor, '{INPUT}'")
    identifier = document.get("id")
    if identifier is not None and not (
        isinstance(identifier, str) and len(identifier) <= MAX_ID and is_unicode(identifier)
    ):
        raise BadRequest(f"'id' must be text of at most {MAX_ID} characters")
    return Inference(identifier, _read_input(inputs[0], rest, wanted), _read_outputs(document, names))


def write_answer(
    about: JsonObject,
    probabilities: NDArray[np.float32],
    labels: Sequence[str],
    outputs: Sequence[Output],
    *,
    calibrated: NDArray[np.float32] | None = None,
    known: NDArray[np.bool_] | None = None,
) -> tuple[bytes, int | None]:
    """An answer's body, and the length of its JSON if binary data follows. `about` are the members beside the outputs.

    `calibrated` and `known` are needed where the outputs of these names are asked for.
    """
    tensors = {PROBABILITIES: probabilities, CALIBRATED: calibrated, KNOWN: known}
    described, rest = [], b""
    for output in outputs:
        tensor, data, raw = _as_text(labels) if output.name == LABELS else _as_numbers(tensors[output.name])
        tensor = {"name": output.name, **tensor}
        if output.binary:
            rest += raw
            described.append({**tensor, "parameters": {"binary_data_size": len(raw)}})
        else:
            described.append({**tensor, "data": data})
    head = json.dumps({**about, "outputs": described}).encode()
    return head + rest, len(head) if any(output.binary for output in outputs) else None


def _as_numbers(values: NDArray[Any] | None) -> tuple[JsonObject, list[Any], bytes]:
    """A tensor's description, its elements, and the same as bytes."""
    assert values is not None
    datatype = "BOOL" if values.dtype == np.bool_ else "FP32"
    raw = values.astype("?" if datatype == "BOOL" else "<f4").tobytes()
    return {"datatype": datatype, "shape": list(values.shape)}, values.ravel().tolist(), raw


def _as_text(labels: Sequence[str]) -> tuple[JsonObject, list[Any], bytes]:
    raw = b"".join(struct.pack("<I", len(text)) + text for text in (label.encode() for label in labels))
    return {"datatype": "BYTES", "shape": [len(labels)]}, list(labels), raw


def _split(body: bytes, header_length: str | None) -> tuple[JsonObject, bytes]:
    """Split a body into its JSON and the binary data after it."""
    length = len(body)
    if header_length is not None:
        if not re.fullmatch("[0-9]{1,12}", header_length) or int(header_length) > length:
            raise BadRequest(f"{HEADER_LENGTH} is {shown(header_length)!r}, and the body has {length:,} bytes")
        length = int(header_length)
    if length > MAX_JSON_BYTES:
        raise BadRequest(
            f"the JSON of the request has {length:,} bytes; at most {MAX_JSON_BYTES:,} are read",
            fix="send tensors as binary data behind the JSON",
        )
    try:
        document = json.loads(body[:length], parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the request is not valid JSON: {shown(str(error))}") from None
    if not isinstance(document, dict):
        raise BadRequest("the request's JSON must be an object")
    return document, body[length:]


def _refuse_constant(word: str) -> None:
    raise BadRequest(f"the request holds {word}, which is not a number that JSON knows")


def _read_input(tensor: JsonObject, rest: bytes, wanted: Preprocessing) -> list[Upload]:
    name, datatype, shape = tensor.get("name"), tensor.get("datatype"), tensor.get("shape")
    if name != INPUT:
        raise BadRequest(f"there is no input {_quoted(name)}; this model's is '{INPUT}'")
    if datatype not in ("BYTES", "UINT8", "FP32"):
        raise BadRequest(f"the datatype of '{INPUT}' is {_quoted(datatype)}; it takes BYTES, UINT8 and FP32")
    expected = () if datatype == "BYTES" else pixel_shape(wanted)
    _check_shape(shape, expected, datatype)
    assert isinstance(shape, list)
    size = _parameters(tensor).get("binary_data_size")
    if size is None:
        if rest:
            raise BadRequest(f"{len(rest):,} bytes follow the JSON, and no tensor says that they are its data")
        return _from_json(tensor.get("data"), datatype, shape)
    if "data" in tensor:
        raise BadRequest(f"'{INPUT}' has both 'data' and 'binary_data_size'; it may have one")
    if type(size) is not int or size != len(rest):
        raise BadRequest(f"'binary_data_size' is {_quoted(size)}, and {len(rest):,} bytes follow the JSON")
    return _from_bytes(rest, datatype, shape)


def _check_shape(shape: Any, expected: tuple[int, ...], datatype: str) -> None:
    form = str([-1, *expected])
    if not isinstance(shape, list) or not all(type(size) is int for size in shape):
        raise BadRequest(f"the shape of '{INPUT}' must be a list of whole numbers, of the form {form}")
    if len(shape) != 1 + len(expected) or tuple(shape[1:]) != expected:
        raise BadRequest(
            f"the shape of '{INPUT}' is {shown(str(shape))}; as {datatype} it must be of the form {form}",
            fix="send images of other sizes as BYTES: encoded, one element an image" if expected else None,
        )
    if not 1 <= shape[0] <= MAX_IMAGES:
        raise BadRequest(f"'{INPUT}' holds {shape[0]:,} images; it must be from 1 to {MAX_IMAGES} in a request")


def _from_json(data: Any, datatype: str, shape: list[int]) -> list[Upload]:
    if not isinstance(data, list):
        raise BadRequest(f"'{INPUT}' has neither 'data', a list, nor 'binary_data_size'")
    if datatype == "BYTES":
        _check_count(len(data), shape)
        return [Upload(f"{INPUT}[{index}]", _from_base64(index, text)) for index, text in enumerate(data)]
    try:
        values = np.array(data)
    except (ValueError, RecursionError, OverflowError):
        values = np.array(None)
    if values.dtype.kind not in "iuf" or not _holds_numbers_only(data):
        raise BadRequest(f"the data of '{INPUT}' must be numbers, all in one list or nested as its shape is")
    if values.ndim > 1 and list(values.shape) != shape:
        raise BadRequest(f"the data of '{INPUT}' is nested as {list(values.shape)}, and its shape is {shape}")
    _check_count(values.size, shape)
    if datatype == "UINT8":
        if values.dtype.kind == "f" or values.min() < 0 or values.max() > 255:
            raise BadRequest(f"the data of '{INPUT}' as UINT8 must be whole numbers from 0 to 255")
        return _as_files(values.astype(np.uint8).reshape(shape))
    return _as_files(_quantised(values.astype(np.float64).reshape(shape)))


def _holds_numbers_only(data: list[Any]) -> bool:
    """Whether lists in lists hold numbers and nothing else. NumPy takes a true beside numbers for a 1."""
    while (kinds := set(map(type, data))) == {list}:
        data = list(chain.from_iterable(data))
    return kinds <= {int, float}


def _from_bytes(data: bytes, datatype: str, shape: list[int]) -> list[Upload]:
    if datatype == "BYTES":
        elements = _split_elements(data)
        _check_count(len(elements), shape)
        return [Upload(f"{INPUT}[{index}]", element) for index, element in enumerate(elements)]
    width = 1 if datatype == "UINT8" else 4
    if len(data) != width * prod(shape):
        raise BadRequest(f"the data of '{INPUT}' has {len(data):,} bytes; its shape takes {width * prod(shape):,}")
    if datatype == "UINT8":
        return _as_files(np.frombuffer(data, np.uint8).reshape(shape))
    return _as_files(_quantised(np.frombuffer(data, "<f4").reshape(shape)))


def _split_elements(data: bytes) -> list[bytes]:
    """Elements of a BYTES tensor: each has its length before it, in 4 bytes, little-endian."""
    elements, place = list[bytes](), 0
    while place < len(data):
        if place + 4 > len(data):
            raise BadRequest(f"the data of '{INPUT}' ends within the length of element {len(elements)}")
        [length] = struct.unpack_from("<I", data, place)
        place += 4
        if place + length > len(data):
            raise BadRequest(f"element {len(elements)} of '{INPUT}' says {length:,} bytes, of which not all are there")
        elements.append(data[place : place + length])
        place += length
        if len(elements) > MAX_IMAGES:
            break
    return elements


def _from_base64(index: int, text: Any) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError, TypeError):
        raise BadRequest(
            f"element {index} of '{INPUT}' is not base64 text, as which JSON carries an encoded image",
            fix="send it as base64, or as binary data behind the JSON",
        ) from None


def _quantised(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Pixels from 0 to 1 as the nearest of 256 levels."""
    if not np.isfinite(values).all() or values.min() < 0 or values.max() > 1:
        raise BadRequest(f"the data of '{INPUT}' as FP32 must be pixels from 0 to 1, finite and not normalised")
    levels: NDArray[np.uint8] = np.rint(values * 255.0).astype(np.uint8)
    return levels


def _as_files(pixels: NDArray[np.uint8]) -> list[Upload]:
    """Encode pixels (images, channels, height, width) losslessly as image files, so that one code path reads them."""
    files = []
    for index, image in enumerate(pixels):
        out = io.BytesIO()
        Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0)).save(out, "BMP")
        files.append(Upload(f"{INPUT}[{index}]", out.getvalue()))
    return files


def _read_outputs(document: JsonObject, names: Sequence[str]) -> list[Output]:
    binary = _flag(_parameters(document), "binary_data_output", default=False)
    asked = document.get("outputs")
    if asked is None or asked == []:
        return [Output(name, binary) for name in names]
    if not isinstance(asked, list) or not all(isinstance(one, dict) for one in asked):
        raise BadRequest("'outputs' must be a list of objects")
    outputs: list[Output] = []
    for one in asked:
        if (name := one.get("name")) not in names:
            raise BadRequest(f"there is no output {_quoted(name)}; this model's are {', '.join(names)}")
        if any(name == output.name for output in outputs):
            raise BadRequest(f"the output '{name}' is asked for twice")
        parameters = _parameters(one)
        if "classification" in parameters:
            raise BadRequest("the classification extension is not supported", fix=f"ask for {LABELS}")
        outputs.append(Output(name, _flag(parameters, "binary_data", default=binary)))
    return outputs


def _parameters(document: JsonObject) -> JsonObject:
    parameters = document.get("parameters")
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise BadRequest("'parameters' must be an object")
    return parameters


def _flag(parameters: JsonObject, name: str, *, default: bool) -> bool:
    value = parameters.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise BadRequest(f"the parameter '{name}' must be true or false")
    return value


def _check_count(found: int, shape: list[int]) -> None:
    if found != prod(shape):
        raise BadRequest(f"the data of '{INPUT}' holds {found:,} elements; its shape {shape} takes {prod(shape):,}")


def _quoted(value: Any) -> str:
    return shown(repr(value))
