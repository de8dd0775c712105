"""The classes of `IPython.display` that programs use most, for images without IPython."""

from pyexec.guest.reports.display import (
    DisplayHandle,
    clear_output,
    display,
    publish_display_data,
    update_display,
)


class DisplayObject:
    """Data of one MIME type, given as such or as the name of a file."""

    mime = "text/plain"
    mode = "r"

    def __init__(self, data=None, url=None, filename=None, metadata=None):
        self.data, self.url, self.filename, self.metadata = data, url, filename, metadata or {}
        if data is None and filename is not None:
            encoding = None if "b" in self.mode else "utf-8"
            with open(filename, self.mode, encoding=encoding) as file:
                self.data = file.read()

    def __repr__(self):
        return "<%s.%s object>" % (type(self).__module__, type(self).__name__)

    def _repr_mimebundle_(self, include=None, exclude=None):
        if self.data is None:
            return {}
        return {self.mime: self.data}, {self.mime: self.metadata} if self.metadata else {}


class HTML(DisplayObject):
    """A page or a part of it."""

    mime = "text/html"


class Markdown(DisplayObject):
    """A text in Markdown."""

    mime = "text/markdown"


class Latex(DisplayObject):
    """A text in LaTeX."""

    mime = "text/latex"


class Math(DisplayObject):
    """A formula in LaTeX."""

    mime = "text/latex"

    def _repr_mimebundle_(self, include=None, exclude=None):
        return {self.mime: "$\\displaystyle %s$" % self.data.strip("$")}


class SVG(DisplayObject):
    """A vector graphic."""

    mime = "image/svg+xml"


class Javascript(DisplayObject):
    """A script for a browser."""

    mime = "application/javascript"


class Pretty(DisplayObject):
    """A plain text."""


class JSON(DisplayObject):
    """A document of JSON: an object, a list, or its text."""

    mime = "application/json"

    def __init__(self, data=None, url=None, filename=None, expanded=False, metadata=None, root="root", **_):
        super().__init__(data, url, filename, metadata)
        if isinstance(self.data, str):
            import json

            self.data = json.loads(self.data)


class Image(DisplayObject):
    """A PNG, JPEG or GIF image."""

    mode = "rb"
    types = {
        "png": "image/png",
        "jpg": "image/jpeg",
        "jpeg": "image/jpeg",
        "gif": "image/gif",
        "webp": "image/webp",
    }

    def __init__(
        self, data=None, url=None, filename=None, format=None, width=None, height=None, metadata=None, **_
    ):
        if isinstance(data, str) and filename is None and url is None:  # as in IPython: a name or a URL
            data, url, filename = (None, data, None) if "://" in data else (None, None, data)
        super().__init__(data, url, filename, metadata)
        if width is not None:
            self.metadata["width"] = width
        if height is not None:
            self.metadata["height"] = height
        self.mime = self.types.get((format or guess_format(self.data)).lower(), "image/png")

    def _repr_mimebundle_(self, include=None, exclude=None):
        if self.data is None and self.url is not None:
            return {"text/html": '<img src="%s"/>' % self.url.replace('"', "&quot;")}
        return super()._repr_mimebundle_(include, exclude)


def guess_format(data):
    """Return the format of an image by its first bytes."""
    signatures = {b"\xff\xd8\xff": "jpeg", b"GIF8": "gif", b"RIFF": "webp"}
    found = [name for start, name in signatures.items() if (data or b"").startswith(start)]
    return found[0] if found else "png"


EXPORTED = (
    DisplayHandle, HTML, Image, JSON, Javascript, Latex, Markdown, Math, Pretty, SVG,
    clear_output, display, publish_display_data, update_display,
)  # fmt: skip


def fill(module):
    """Fill a module that replaces a part of IPython."""
    if module.__name__ in ("IPython", "IPython.core"):
        module.get_ipython = lambda: None
        module.version_info, module.__version__ = (0, 0, 0, ""), "0.0.0"
        module.__getattr__ = lambda name: import_part(module.__name__, name)
        return
    for each in EXPORTED:
        each.__module__ = "IPython.core.display"
        setattr(module, each.__name__, each)


def import_part(package, name):
    """Import a submodule on first access. Installed IPython imports these with `import IPython`."""
    if not name.startswith("_"):
        import importlib

        try:
            return importlib.import_module("%s.%s" % (package, name))
        except ModuleNotFoundError:
            pass
    raise AttributeError("module %r has no attribute %r" % (package, name))
