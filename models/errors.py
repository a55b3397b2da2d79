"""All errors that a user can meet, each with a code, an HTTP status and a fix.

Code raises one of these; `service.http.errors` renders them as problem+json (RFC 9457) in one place,
and the worker stores `detail` as the reason a run failed.
"""

from collections.abc import Sequence
from typing import Any, NotRequired, TypedDict, cast


class FieldError(TypedDict):
    """A problem with one field of a spec or a request, as problem documents send it."""

    field: str
    """Its place, with dots: model.blocks.0.convs."""
    message: str
    value: NotRequired[Any]
    """What was received, where it is short."""
    nearest: NotRequired[Any]
    """The nearest valid value, or the name that was meant; null takes the field out."""
    choices: NotRequired[list[str]]


class ProblemJson(TypedDict):
    """The members of a problem document that every error has; extension members stand beside them."""

    title: str
    detail: str
    code: NotRequired[str]
    status: NotRequired[int]
    fix: NotRequired[str]


class EpochalError(Exception):
    """Base class of errors with a code, an HTTP status and a fix.

    `detail` states the value received and the rule it broke; `fix` says what to do. Keyword arguments become extension
    members of the problem document.
    """

    code = "error"
    status = 500
    title = "Something went wrong"

    def __init__(self, detail: str, *, fix: str | None = None, **extra: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.fix = fix
        self.extra = extra

    def as_problem(self) -> ProblemJson:
        """The error as the members of a problem document, to be stored or sent to another process."""
        members: dict[str, Any] = {"title": self.title, "status": self.status, "detail": self.detail, "code": self.code}
        if self.fix:
            members["fix"] = self.fix
        extensions = {name: value for name, value in self.extra.items() if name not in members}
        return cast(ProblemJson, members | extensions)


class InvalidSettings(EpochalError):
    """A variable or a flag that cannot be used: `detail` has a line for each, with the value and the form wanted."""

    code = "invalid-settings"
    title = "A setting cannot be used"


class SpecError(EpochalError):
    """A spec that cannot be run. `errors` has one entry a field."""

    code = "invalid-spec"
    status = 422
    title = "The experiment cannot be run as it is written"

    def __init__(self, errors: Sequence[FieldError], *, fix: str | None = None) -> None:
        detail = "; ".join(f"{error['field']}: {error['message']}" for error in errors)
        super().__init__(detail, fix=fix, errors=list(errors))
        self.errors = list(errors)


class StudyError(SpecError):
    """A study that cannot be run, because of itself or of the spec of one of its rows."""

    title = "The study cannot be run as it is written"


class InvalidRequest(EpochalError):
    """A parameter, header or part that breaks its rule. Same `errors` entries as SpecError, when there are several."""

    code = "invalid-request"
    status = 422
    title = "The request is invalid"


class ImageError(EpochalError):
    """An uploaded image that cannot be read. Name which one in `detail` and as `image`/`index` extras."""

    code = "unreadable-image"
    status = 422
    title = "An image cannot be read"


class ArchiveError(EpochalError):
    """Files that cannot become a dataset: `detail` names the file inside the archive (also as `file`) and its fault."""

    code = "unusable-archive"
    status = 422
    title = "The files cannot be imported"


class NotFound(EpochalError):
    """No resource has this id, name or address."""

    code = "not-found"
    status = 404
    title = "Not found"


class Conflict(EpochalError):
    """The resource's present state does not allow the request."""

    code = "conflict"
    status = 409
    title = "Not possible in the present state"


class Unauthorized(EpochalError):
    """No API key, or an unknown or revoked one."""

    code = "unauthorized"
    status = 401
    title = "An API key is needed"


class Forbidden(EpochalError):
    """A key without the required role, or a request from another origin or for another host."""

    code = "forbidden"
    status = 403
    title = "Not allowed"


class TooLarge(EpochalError):
    """A body, part or image over its cap."""

    code = "too-large"
    status = 413
    title = "Too large"


class UnsupportedMedia(EpochalError):
    """A content type that this address does not read."""

    code = "unsupported-media-type"
    status = 415
    title = "Unsupported content type"


class TooManyRequests(EpochalError):
    """A rate limit or quota. Carry `retry_after_seconds` as an extra when waiting helps."""

    code = "too-many-requests"
    status = 429
    title = "Too many requests"


class Unavailable(EpochalError):
    """A part of the lab does not answer: broker, database, workers, a full queue. Carry `retry_after_seconds`."""

    code = "unavailable"
    status = 503
    title = "A part of the lab does not answer"


class StorageFull(EpochalError):
    """The disk is full or cannot be written."""

    code = "storage-full"
    status = 507
    title = "The disk is full or cannot be written"


class DiskQuota(EpochalError):
    """A key's experiments would exceed its disk quota."""

    code = "disk-quota"
    status = 507
    title = "The key's disk quota is used up"


class DataUnavailable(EpochalError):
    """A dataset or pretrained weights could not be downloaded from any source."""

    code = "data-unavailable"
    status = 503
    title = "Data could not be fetched"


class CorruptFile(EpochalError):
    """A stored file with a wrong digest or format."""

    code = "corrupt-file"
    status = 500
    title = "A stored file is damaged"


class LeaseLost(EpochalError):
    """This attempt no longer owns the run: another has claimed it, or it was settled. Stop writing."""

    code = "lease-lost"
    status = 409
    title = "Another worker owns this run"
