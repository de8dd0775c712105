"""Scripts with inline metadata."""

from pyexec.domain.inline_metadata import InlineMetadata, Script, read_inline_metadata


def read(source: str | bytes) -> InlineMetadata | None:
    """Read the metadata of a script."""
    data = source.encode() if isinstance(source, str) else source
    return read_inline_metadata(Script("main.py", data, "code"))


def block(toml: str, kind: str = "script") -> str:
    """Return the block of comments that holds this TOML."""
    lines = "".join(f"# {line}".rstrip() + "\n" for line in toml.split("\n"))
    return f"# /// {kind}\n{lines}# ///\n"
