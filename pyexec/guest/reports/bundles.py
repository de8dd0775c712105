"""Format an object as a MIME bundle, by the rules of IPython: its `_repr_*_` methods, and figures of matplotlib."""

import io
import sys

from pyexec.guest.reports.channel import (
    BINARY,
    FIELD_OVERHEAD,
    JSON,
    METADATA,
    TEXT,
    channel,
    field,
    without_own_frames,
)

METHODS = {
    "text/html": "_repr_html_",
    "text/markdown": "_repr_markdown_",
    "image/svg+xml": "_repr_svg_",
    "image/png": "_repr_png_",
    "application/pdf": "_repr_pdf_",
    "image/jpeg": "_repr_jpeg_",
    "text/latex": "_repr_latex_",
    "application/json": "_repr_json_",
    "application/javascript": "_repr_javascript_",
}
BINARY_TYPES = ("image/png", "image/jpeg", "application/pdf")
CANARY = "_ipython_canary_method_should_not_exist_"
"""An object that has this attribute answers to every name, so its `_repr_*_` attributes prove nothing."""


def bundle_of(value, include=None, exclude=None):
    """Return the data and the metadata of an object. Forms that fail are left out, with a traceback on stderr."""
    data, metadata = {}, {}
    wanted = Selection(include, exclude)
    if wanted("text/plain"):
        data["text/plain"] = attempt(lambda: repr(value))
    for mime, name in METHODS.items():
        method = find_method(value, name) if wanted(mime) else None
        if method is not None:
            add(data, metadata, mime, attempt(method))
    if wanted("image/png") and is_figure(value):
        data["image/png"] = attempt(lambda: figure_png(value))
    method = find_method(value, "_repr_mimebundle_")
    if method is not None:
        attempt(lambda: add_bundle(data, metadata, wanted, method(include=include, exclude=exclude)))
    return {mime: each for mime, each in data.items() if each is not None}, metadata


class Selection:
    """The MIME types that the caller of `display` wants."""

    def __init__(self, include, exclude):
        self.include = None if include is None else set(include)
        self.exclude = set(exclude or ())

    def __call__(self, mime):
        return (self.include is None or mime in self.include) and mime not in self.exclude


def find_method(value, name):
    """Return the bound method, or None. A class has no methods of its own here."""
    if isinstance(value, type):
        return None
    try:
        if callable(getattr(value, CANARY, None)):
            return None
        method = getattr(value, name, None)
    except Exception:  # a property of the program
        return None
    return method if callable(method) else None


def attempt(function):
    """Return the function's value; None with a traceback on stderr if it raises, as IPython does."""
    try:
        return function()
    except NotImplementedError:
        return None
    except Exception:
        import traceback

        kind, error, trace = sys.exc_info()
        traceback.print_exception(kind, error, without_own_frames(trace))
        return None


def add(data, metadata, mime, value):
    """Add what a `_repr_*_` method has returned: the value, or a pair of the value and its metadata."""
    if isinstance(value, tuple) and len(value) == 2:
        value, more = value
        if isinstance(more, dict) and more:
            metadata[mime] = more
    if value is None:
        return
    if mime in BINARY_TYPES:
        allowed = (bytes, str)  # a string is base64
    elif mime == "application/json":
        allowed = (dict, list, str, int, float)
    else:
        allowed = (str,)
    if isinstance(value, allowed):
        data[mime] = value
    else:
        write_wrong_type(METHODS[mime], value)


def add_bundle(data, metadata, wanted, value):
    """Add what `_repr_mimebundle_` has returned: a dictionary, or a pair of it and its metadata."""
    value, more = value if isinstance(value, tuple) and len(value) == 2 else (value, None)
    if isinstance(value, dict):
        data.update([(mime, each) for mime, each in value.items() if wanted(mime)])
    elif value is not None:
        write_wrong_type("_repr_mimebundle_", value)
    if isinstance(more, dict):
        metadata.update(more)


def write_wrong_type(name, value):
    text = "%s returned a value of the type %s; it is not shown\n"
    sys.stderr.write(text % (name, type(value).__name__))


def is_figure(value):
    module = sys.modules.get("matplotlib.figure")
    return module is not None and isinstance(value, getattr(module, "Figure", ()))


def figure_png(figure):
    """Return the same bytes that `savefig` writes to a file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def encode(data, metadata, size_max):
    """Return a bundle as the fields of a record, and the bytes that it takes in the result. The names of MIME types
    become lower case. Of two names that are equal then, the second is dropped.

    If it takes more than the maximum, the record is empty: large values are not copied."""
    fields, names, size = [], set(), FIELD_OVERHEAD
    for name, value in data.items():
        mime = lowered(name)
        encoded = attempt(lambda: encode_value(mime, value))  # noqa: B023 it is called at once
        if encoded is None or mime in names:
            channel.drop_display()
            continue
        names.add(mime)
        kind, content = encoded
        size += FIELD_OVERHEAD + len(mime)
        size += (len(content) + 2) // 3 * 4 if kind == BINARY else len(content)
        if size > size_max:
            return b"", size
        fields.append(field(kind, mime, content))
    if metadata:
        content = attempt(lambda: to_json(renamed(metadata, names)))
        if content is None:
            channel.drop_display()
        else:
            fields.append(field(METADATA, "", content))
            size += len(content)
    return b"".join(fields), size


def lowered(name):
    return name.lower() if isinstance(name, str) else name


def renamed(metadata, names):
    """Return the metadata with those keys in lower case that name a form. Other keys are the program's own."""
    return {lowered(key) if lowered(key) in names else key: each for key, each in metadata.items()}


def encode_value(mime, value):
    """Return the kind and the bytes of a value."""
    if not isinstance(mime, str):
        raise TypeError("a MIME type must be a string, not a value of the type " + type(mime).__name__)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return BINARY, bytes(value)
    if mime == "application/json" or mime.endswith("+json") or not isinstance(value, str):
        return JSON, to_json(value)
    return TEXT, value.encode("utf-8", "backslashreplace")


def to_json(value):
    import json

    try:
        return json.dumps(value, allow_nan=False).encode()
    except (TypeError, ValueError):
        return json.dumps(cleaned(value), allow_nan=False).encode()


def cleaned(value):
    """Return what JSON can express of a value, as Jupyter does.

    NaN and infinities become text, keys strings, bytes base64, dates text in ISO format, and collections lists."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return float(value) if value - value == 0 else float.__repr__(value)
    if isinstance(value, dict):
        texts = {key if isinstance(key, str) else str(key): cleaned(each) for key, each in value.items()}
        if len(texts) < len(value):
            raise ValueError("two keys of a dictionary are equal as strings")
        return texts
    if isinstance(value, (bytes, bytearray)):
        import binascii

        return binascii.b2a_base64(value, newline=False).decode()
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if hasattr(value, "tolist"):  # arrays and numbers of numpy
        return cleaned(value.tolist())
    if hasattr(value, "__iter__"):
        return [cleaned(each) for each in value]
    raise TypeError("JSON cannot express a value of the type " + type(value).__name__)
