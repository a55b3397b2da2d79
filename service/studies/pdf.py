"""Renders a report's HTML page as a PDF, by WeasyPrint (the extra epochal[pdf])."""

from PIL import ImageFile

from models.errors import EpochalError


class PdfUnavailable(EpochalError):
    """WeasyPrint or a library that it needs is not installed."""

    code = "pdf-unavailable"
    status = 501
    title = "PDFs are not available in this lab"


INSTALL = (
    "pip install 'epochal[pdf]' where the API runs; on Debian and Ubuntu also "
    "apt-get install libpango-1.0-0 libpangoft2-1.0-0 libharfbuzz-subset0; report.html prints well from a browser too"
)


def render_pdf(page: bytes) -> bytes:
    """The page as a PDF; the same page gives the same bytes. Raises PdfUnavailable without the extra."""
    try:
        from weasyprint import HTML
        from weasyprint.urls import URLFetcher
    except ImportError as error:
        raise PdfUnavailable(f"the extra epochal[pdf] is not installed: {error}", fix=INSTALL) from error
    except OSError as error:  # of cffi, which looks for pango
        raise PdfUnavailable(f"a library that PDFs need is missing: {error}", fix=INSTALL) from error
    ImageFile.LOAD_TRUNCATED_IMAGES = False  # WeasyPrint sets it on import; uploads that are cut off have to be refused
    # Pictures are inside the page: nothing else is read, neither files nor addresses.
    fetcher = URLFetcher(allowed_protocols=["data"])
    document: bytes = HTML(string=page.decode(), url_fetcher=fetcher).write_pdf(pdf_identifier=b"epochal")
    return document
