"""Convert the JSON of requests to attrs classes strictly, with errors for people."""

import difflib
import math
from typing import Any, TypeVar

import attrs
import cattrs
from cattrs.gen import make_dict_structure_fn

from pyexec.errors import QUOTE_LENGTH_MAX, InvalidRequest, quote, shorten

T = TypeVar("T")
ITEMS_MAX = 10_000
"""Maximum length of a list in a request. Each item costs microseconds in several steps."""


def parse_request(document: Any, cls: type[T], *, what: str) -> T:
    """Convert a JSON document to a `cls` strictly; raise `InvalidRequest` that names the first wrong field."""
    if not isinstance(document, dict):
        raise InvalidRequest(f"{what} must be a JSON object, not {_json_type(document)}", field=what)
    try:
        return _requests.structure(document, cls)
    except cattrs.BaseValidationError as group:
        raise _first_error(group, "") from group


class _Mismatch(ValueError):
    """A JSON value does not fit its field."""


class _WrongType(_Mismatch):
    def __init__(self, expected: str, value: object) -> None:
        super().__init__(f"must be {expected}, not {_json_type(value)}")


class _ItemError(Exception):
    """An item of a list is wrong."""

    def __init__(self, index: int, error: Exception) -> None:
        super().__init__(index, error)
        self.index = index
        self.error = error


def _json_type(value: object) -> str:
    types = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    return types.get(type(value), "a number")


def _strict(accepted: tuple[type, ...], expected: str) -> Any:
    """Return a hook that accepts JSON values of these types, and no others."""

    def hook(value: object, _: object) -> object:
        if isinstance(value, bool) is not (bool in accepted) or not isinstance(value, accepted):
            raise _WrongType(expected, value)
        if isinstance(value, float) and not math.isfinite(value):
            raise _Mismatch(f"must be {expected}, not {value}")
        if isinstance(value, str):
            _check_encodable(value)
        return value

    return hook


_strict_int = _strict((int,), "a whole number")


def _structure_int(value: object, kind: object) -> object:
    """Accept 64.0 as a whole number, too: JSON has only one type of number."""
    if isinstance(value, float) and not value.is_integer():
        raise _Mismatch(f"must be a whole number, not {value}")
    return _strict_int(int(value) if isinstance(value, float) else value, kind)


def _check_encodable(text: str) -> None:
    """Reject half of a surrogate pair: JSON can contain it, but file names and streams cannot."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise _Mismatch("must be valid text; it contains an unpaired surrogate") from error


def _new_request_converter() -> cattrs.Converter:
    converter = cattrs.Converter(forbid_extra_keys=True, detailed_validation=True)
    converter.register_structure_hook(str, _strict((str,), "a string"))
    converter.register_structure_hook(bool, _strict((bool,), "true or false"))
    converter.register_structure_hook(int, _structure_int)
    converter.register_structure_hook(float, _strict((int, float), "a number"))

    def structure_attrs(cls: type) -> Any:
        from_dict: Any = make_dict_structure_fn(cls, converter, _cattrs_forbid_extra_keys=True)
        optional = [a.name for a in attrs.fields(cls) if a.default is not attrs.NOTHING]

        def hook(value: object, _: object) -> object:
            if not isinstance(value, dict):
                raise _WrongType("an object", value)
            nulls = {name for name in optional if name in value and value[name] is None}
            return from_dict({k: v for k, v in value.items() if k not in nulls} if nulls else value, cls)

        return hook

    def structure_tuple(cls: Any) -> Any:
        of = cls.__args__[0]

        def hook(value: object, _: object) -> object:
            if not isinstance(value, list):
                raise _WrongType("a list", value)
            if len(value) > ITEMS_MAX:
                raise _Mismatch(f"must have at most {ITEMS_MAX} items, not {len(value)}")
            items = []
            for index, item in enumerate(value):
                try:
                    items.append(converter.structure(item, of))
                except (cattrs.BaseValidationError, _Mismatch) as error:
                    raise _ItemError(index, error) from error
            return tuple(items)

        return hook

    converter.register_structure_hook_factory(attrs.has, structure_attrs)
    converter.register_structure_hook_factory(
        lambda cls: getattr(cls, "__origin__", None) is tuple, structure_tuple
    )
    return converter


_requests = _new_request_converter()


def _suggest(unknown: str, cls: type) -> str:
    """Suggest what was meant by a field that `cls` does not have."""
    if unknown in (hints := getattr(cls, "HINTS", {})):
        return str(hints[unknown])
    fields = attrs.fields(cls)
    known = [field.name for field in fields]
    if len(unknown) > QUOTE_LENGTH_MAX:  # the search takes time with the square of the length
        return f"known fields are {', '.join(known)}"
    nested = {
        inner.name: field.name
        for field in fields
        if attrs.has(field.type)
        for inner in attrs.fields(field.type)
    }
    if unknown in nested:
        return f"it belongs in {nested[unknown]!r}"
    near = difflib.get_close_matches(unknown, [*known, *nested], n=1, cutoff=0.5)
    if near and near[0] in nested:
        return f"did you mean '{nested[near[0]]}.{near[0]}'?"
    return f"did you mean {near[0]!r}?" if near else f"known fields are {', '.join(known)}"


def _first_error(error: BaseException, path: str) -> InvalidRequest:
    """Turn the first leaf of a validation error into a sentence with the dotted path of its field."""
    if isinstance(error, cattrs.ForbiddenExtraKeysError):
        unknown = min(error.extra_fields)
        name = f"{path}.{unknown}".lstrip(".")
        return InvalidRequest(
            f"unknown field {quote(name)}; {_suggest(unknown, error.cl)}",
            field=shorten(name),
            code="unknown_field",
        )
    if isinstance(error, cattrs.BaseValidationError):
        unknown_fields = (e for e in error.exceptions if isinstance(e, cattrs.ForbiddenExtraKeysError))
        inner = next(unknown_fields, error.exceptions[0])  # a misspelled field explains a missing one
        leaf = _first_error(inner, f"{path}.{_field_of(inner)}".strip("."))
        if not isinstance(inner, _WrongType):
            return leaf
        example = getattr(attrs.fields(error.cl), _field_of(inner)).metadata.get("example")
        return InvalidRequest(f"{leaf}; for example {example}", field=leaf.field) if example else leaf
    if isinstance(error, _ItemError):
        return _first_error(error.error, f"{path}[{error.index}]")
    if isinstance(error, KeyError):
        return InvalidRequest(f"{path} is missing", field=path)
    return InvalidRequest(f"{path} {error}", field=path)


def _field_of(error: BaseException) -> str:
    for note in getattr(error, "__notes__", ()):
        if isinstance(note, cattrs.AttributeValidationNote):
            return note.name
    return ""
