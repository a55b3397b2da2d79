"""What making a PDF leaves as it was."""

import io

import pytest
from PIL import Image

from models.data.decoding import decode_upright, open_image
from models.errors import ImageError
from service.studies.pdf import render_pdf


def test_images_that_are_cut_off_are_refused_after_a_pdf_was_made() -> None:
    pytest.importorskip("weasyprint")
    assert render_pdf(b"<p>A report</p>").startswith(b"%PDF")
    whole = io.BytesIO()
    Image.effect_noise((32, 32), 50).save(whole, "PNG")
    with pytest.raises(ImageError):
        decode_upright(open_image(whole.getvalue()[:-30]), 32, grayscale=None)
