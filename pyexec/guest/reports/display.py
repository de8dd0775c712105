"""The functions of `IPython.display` that show objects, for a process that reports."""

from pyexec.guest.reports.bundles import bundle_of, encode, find_method, is_figure
from pyexec.guest.reports.channel import channel, load


def display(
    *objects,
    include=None,
    exclude=None,
    metadata=None,
    transient=None,
    display_id=None,
    raw=False,
    clear=False,
    **_,
):
    """Show each object. With `raw`, an object is a MIME bundle.

    A process that the program has forked prints the objects instead, as IPython does without its shell."""
    for value in objects:
        if not channel.is_open():
            print(value)
        elif raw:
            publish_display_data(value, metadata)
        elif not displays_itself(value):
            if is_figure(value):
                load("open_figures").shown.add(value)
            data, own = bundle_of(value, include, exclude)
            publish_display_data(data, dict(own, **metadata) if metadata else own)
    if display_id:
        return DisplayHandle(display_id)
    return None


def displays_itself(value):
    method = find_method(value, "_ipython_display_")
    if method is None:
        return False
    try:
        method()
    except NotImplementedError:
        return False
    return True


def publish_display_data(data, metadata=None, *_, **__):
    """Show a MIME bundle."""
    if not isinstance(data, dict):
        raise TypeError("a MIME bundle must be a dictionary, not a value of the type " + type(data).__name__)
    payload, size = encode(data, metadata or {}, channel.bytes_left)
    channel.send_display(payload, size)


def update_display(value, display_id=None, **options):
    """Show the object again. Displays that are shown already do not change."""
    display(value, **options)


def clear_output(wait=False):
    """Do nothing: what is shown stays in the result."""


class DisplayHandle:
    """Returned by `display` for a `display_id`."""

    def __init__(self, display_id=None):
        self.display_id = display_id

    def display(self, value, **options):
        display(value, **options)

    def update(self, value, **options):
        display(value, **options)


def show_value(value):
    """Show the value of a last expression, unless its repr is its only form, or it is a figure that has been shown."""
    if is_figure(value):
        load("open_figures").show(value)
        return
    data, metadata = bundle_of(value)
    if any(mime != "text/plain" for mime in data):
        publish_display_data(data, metadata)
