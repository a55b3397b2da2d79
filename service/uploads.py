"""Reading images out of a multipart body: how many, how named, how large; what they hold is decoded elsewhere."""

from contextlib import suppress
from dataclasses import dataclass

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from models.errors import InvalidRequest, TooLarge, UnsupportedMedia
from service.errors import BadRequest, shown

MAX_IMAGES = 256
MAX_FIELDS = 8
MAX_FIELD_BYTES = 64 * 1024
MAX_IMAGE_BYTES = 32_000_000
PART = "image"
EXAMPLE = "curl -F image=@cat.png -F image=@dog.jpg ADDRESS"


@dataclass(frozen=True, slots=True)
class Upload:
    """One image as it was sent."""

    name: str
    data: bytes


async def read_images(request: Request) -> list[Upload]:
    """The parts named `image`, in the order sent."""
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise UnsupportedMedia("images are sent as multipart/form-data", fix=EXAMPLE)
    try:
        async with request.form(max_files=MAX_IMAGES, max_fields=MAX_FIELDS, max_part_size=MAX_FIELD_BYTES) as form:
            parts = form.multi_items()
            _check_names([name for name, _ in parts])
            return [await _read(index, part) for index, (_, part) in enumerate(parts)]
    except HTTPException as error:  # Starlette's word for a body that is not what it claims
        _refuse(str(error.detail))
    except (KeyError, UnicodeDecodeError, ValueError) as error:
        _refuse(str(error))
    raise AssertionError("unreachable")


def _check_names(names: list[str]) -> None:
    if PART not in names:
        raise InvalidRequest(
            f"there is no part named '{PART}'" + (f", only '{shown(names[0])}'" if names else ""), fix=EXAMPLE
        )
    if foreign := next((name for name in names if name != PART), None):
        raise InvalidRequest(f"there is a part named '{shown(foreign)}'; parts are named '{PART}'", fix=EXAMPLE)


async def _read(index: int, part: UploadFile | str) -> Upload:
    if isinstance(part, str):
        raise InvalidRequest(f"image {index + 1} is a text field, not a file", fix=EXAMPLE, index=index, image=None)
    name = part.filename or f"image {index + 1}"
    if (part.size or 0) > MAX_IMAGE_BYTES:
        raise TooLarge(f"image {index + 1} has {part.size:,} bytes, more than {MAX_IMAGE_BYTES:,}", index=index)
    data = await part.read()
    with suppress(OSError):
        await part.close()
    return Upload(name, data)


def _refuse(detail: str) -> None:
    if "too many fields" in detail.lower():
        raise InvalidRequest(f"{detail} Images are sent as files, and nothing else is read", fix=EXAMPLE)
    if "too many files" in detail.lower() or "exceeded" in detail.lower():
        raise TooLarge(f"{detail} At most {MAX_IMAGES} images are read at once.", fix="send fewer in one request")
    raise BadRequest(f"the multipart body cannot be read: {detail}", fix=EXAMPLE)
