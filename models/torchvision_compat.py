"""Makes torchvision importable beside a build of torch that its compiled operators do not fit.

PyPI's torchvision wheel is compiled against the CUDA build of torch. Beside a CPU build its library does not load, and
`import torchvision` stops with "operator torchvision::nms does not exist", because it describes that operator's shapes
without asking whether it is there (pytorch/vision issues 9077, 9085). Declaring the two operators' schemas, without an
implementation, lets the import pass: models, datasets and transforms.v2 are plain Python on torch and then work. Box
operators and torchvision's own image decoders do not; nothing here uses them.

Nothing else imports torchvision itself; it is taken from here, so that the order cannot be wrong:

    from models.torchvision_compat import torchvision
"""

import importlib.machinery
import importlib.util
from pathlib import Path

import torch

__all__ = ["torchvision"]

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_declared: torch.library.Library | None = None  # the declarations live as long as this object


def _operators_load() -> bool:
    """Whether torchvision's compiled operators fit this torch. Loading them here is what importing it does first."""
    package = importlib.util.find_spec("torchvision")
    if package is None or package.origin is None:
        return True  # not installed: let `import torchvision` say so
    for suffix in importlib.machinery.EXTENSION_SUFFIXES:
        library = Path(package.origin).with_name("_C" + suffix)
        if library.is_file():
            try:
                torch.ops.load_library(library)  # type: ignore[no-untyped-call]
            except OSError:
                return False
            return True
    return False


def declare_missing_operators() -> bool:
    """Declare the operators that torchvision's import needs, unless the real ones loaded (declaring twice is an error).

    Returns whether the declaration was needed.
    """
    global _declared
    if _declared is None and not _operators_load():
        _declared = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
        for operator in ("nms", "qnms"):
            _declared.define(operator + _SCHEMA)  # type: ignore[no-untyped-call]
    return _declared is not None


declare_missing_operators()

import torchvision  # noqa: E402  (after the declarations)
