"""Read the settings from environment variables, report wrong and unknown ones, and describe all for `--help`."""

import difflib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, get_args, get_origin

import attrs
import cattrs
from attrs import frozen

from pyexec.addresses import is_url, split_host_port
from pyexec.domain.webhooks import HOST_FORM, SECRET_FORM, AllowedHost, parse_secret
from pyexec.errors import SettingsError
from pyexec.settings import PREFIX, Settings

CLIENT_VARIABLES = frozenset({"PYEXEC_SERVER", "PYEXEC_TOKEN", "PYEXEC_TEST_IMAGE"})
"""Variables with the same prefix that the command line client and the tests read. The server ignores them."""

ID_MAX = 2**31 - 1
"""The highest user id that Docker accepts."""
_WHOLE_NUMBER = re.compile(r"-?[0-9]{1,20}")
_NUMBER = re.compile(r"-?[0-9]{0,20}\.?[0-9]{0,20}(e[+-]?[0-9]{1,3})?", re.IGNORECASE)
_NETWORK = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_PREDEFINED_NETWORKS = frozenset({"bridge", "default", "host"})
_TRUE, _FALSE = frozenset({"on", "true", "1"}), frozenset({"off", "false", "0"})


def variable_of(setting: "attrs.Attribute[Any]") -> str:
    """Return the environment variable of a setting."""
    return PREFIX + setting.name.upper()


SETTINGS = {variable_of(setting): setting for setting in attrs.fields(Settings)}
"""All settings, by their environment variables."""


def read_settings(environ: Mapping[str, str]) -> Settings:
    """Return the settings in `environ`; raise `SettingsError` for the first one that is wrong or unknown."""
    settings, errors = _parse(environ)
    if errors:
        raise errors[0]
    return settings


def find_errors(environ: Mapping[str, str]) -> Sequence[SettingsError]:
    """Return an error for each setting in `environ` that is wrong or unknown."""
    return _parse(environ)[1]


def _parse(environ: Mapping[str, str]) -> tuple[Settings, Sequence[SettingsError]]:
    values: dict[str, Any] = {}
    errors: list[SettingsError] = []
    for variable, text in environ.items():
        if not variable.startswith(PREFIX) or variable in CLIENT_VARIABLES:
            continue
        setting = SETTINGS.get(variable)
        if setting is None:
            errors.append(_unknown(variable))
            continue
        try:
            values[setting.name] = _parse_value(setting, text)
        except ValueError:
            errors.append(SettingsError(f"{variable} is {text!r}; allowed: {allowed_values(setting)}"))
    settings = Settings(**values)
    return settings, errors or [
        *_defaults_over_ceilings(settings),
        *_webhook_errors(settings),
        *_address_errors(settings),
        *_network_errors(settings),
    ]


def _unknown(variable: str) -> SettingsError:
    names = [known.removeprefix(PREFIX) for known in SETTINGS]
    near = difflib.get_close_matches(variable.removeprefix(PREFIX), names, n=1)
    meant = f"did you mean {PREFIX}{near[0]}? " if near else ""
    return SettingsError(
        f"{variable} is not a setting; {meant}python-executor-server --help lists all settings"
    )


def _defaults_over_ceilings(settings: Settings) -> Iterator[SettingsError]:
    limits = ("timeout", "memory_mb", "disk_mb", "cpu_shares", "cpus", "cpu_seconds")
    pairs = [(f"default_{name}", f"max_{name}") for name in limits]
    for default_name, ceiling_name in (*pairs, ("session_idle_timeout", "max_session_idle_timeout")):
        default, ceiling = getattr(settings, default_name), getattr(settings, ceiling_name)
        if default is not None and ceiling is not None and default > ceiling:
            yield SettingsError(
                f"{PREFIX}{default_name.upper()} is {default:g}; allowed: at most {PREFIX}{ceiling_name.upper()}, "
                f"which is {ceiling:g}"
            )


def _webhook_errors(settings: Settings) -> Iterator[SettingsError]:
    """Yield an error for each item that is wrong. No error contains a secret."""
    for item in settings.webhook_hosts:
        try:
            AllowedHost.parse(item)
        except ValueError:
            yield SettingsError(f"{PREFIX}WEBHOOK_HOSTS contains {item!r}; allowed: {HOST_FORM}")
    for number, secret in enumerate(settings.webhook_secrets, 1):
        try:
            parse_secret(secret)
        except ValueError:
            yield SettingsError(
                f"{PREFIX}WEBHOOK_SECRETS has a wrong secret at position {number}; allowed: {SECRET_FORM}"
            )


def _address_errors(settings: Settings) -> Iterator[SettingsError]:
    """Yield an error for each address that is malformed. No error contains the index's URL and its password."""
    address = settings.advertise_addr  # other replicas append paths to it
    if address and ({*address} & {"?", "#"} or not is_url(address, ("http", "https"))):
        yield SettingsError(f"{PREFIX}ADVERTISE_ADDR is {address!r}; allowed: http://host:port")
    if settings.pip_index_url and not is_url(settings.pip_index_url, ("http", "https")):
        yield SettingsError(f"{PREFIX}PIP_INDEX_URL is not a URL that begins with https:// or http://")
    if settings.pip_proxy is not None:
        try:
            split_host_port(settings.pip_proxy)
        except ValueError:
            yield SettingsError(f"{PREFIX}PIP_PROXY is {settings.pip_proxy!r}; allowed: HOST:PORT")
        if settings.pip_index_url is None:
            yield SettingsError(f"{PREFIX}PIP_PROXY needs {PREFIX}PIP_INDEX_URL")


def _network_errors(settings: Settings) -> Iterator[SettingsError]:
    """Yield an error for each network that Docker cannot create: its name is malformed or reserved."""
    for name in ("run_network", "setup_network"):
        network = getattr(settings, name)
        if _NETWORK.fullmatch(network) is None or network in _PREDEFINED_NETWORKS:
            yield SettingsError(
                f"{PREFIX}{name.upper()} is {network!r}; allowed: none, or the name of a network of its own "
                "(letters, digits, '_', '.' and '-'; not bridge, default or host)"
            )


def value_type(setting: "attrs.Attribute[Any]") -> Any:
    """Return the type of a setting's value, without None."""
    kinds = get_args(setting.type) if _is_optional(setting) else (setting.type,)
    return next(kind for kind in kinds if kind is not NoneType)


def allowed_values(setting: "attrs.Attribute[Any]") -> str:
    """Describe the values that a setting takes, for error messages and for the help."""
    kind = value_type(setting)
    minimum, maximum = setting.metadata["minimum"], setting.metadata["maximum"]
    choices = ", ".join(setting.metadata["choices"])
    if _is_list(kind):
        return f"a comma-separated list of {choices}" if choices else "a comma-separated list"
    if choices:
        return choices
    if kind in (int, float):
        number = "a whole number" if kind is int else "a number"
        if maximum is not None:
            return f"{number} from {minimum} to {maximum}"
        return number if minimum is None else f"{number}, at least {minimum:g}"
    if kind is bool:
        return "on, off (also true, false, 1, 0)"
    if kind is Path:
        return "a path" if _is_optional(setting) else "a path, not empty"
    if kind is range:
        return f"a number, or FIRST-LAST; from 1 to {ID_MAX}"
    return "text" if _is_optional(setting) else "text, not empty"


def _is_optional(setting: "attrs.Attribute[Any]") -> bool:
    return isinstance(setting.type, UnionType)


def _is_list(kind: Any) -> bool:
    return get_origin(kind) is tuple


def _parse_value(setting: "attrs.Attribute[Any]", text: str) -> Any:
    """Convert the text of a variable to the setting's value; raise `ValueError` if it is not allowed."""
    if text == "" and _is_optional(setting):
        return None
    value = _converter.structure(text, value_type(setting))
    minimum, maximum = setting.metadata["minimum"], setting.metadata["maximum"]
    choices = setting.metadata["choices"]
    if value == "" or (minimum is not None and value < minimum) or (maximum is not None and value > maximum):
        raise ValueError(text)
    if choices and not set(value if isinstance(value, tuple) else [value]).issubset(choices):
        raise ValueError(text)
    return value


def _parse_bool(text: str, _: object) -> bool:
    if text.lower() not in _TRUE | _FALSE:
        raise ValueError(text)
    return text.lower() in _TRUE


def _parse_int(text: str, _: object) -> int:
    if _WHOLE_NUMBER.fullmatch(text) is None:
        raise ValueError(text)  # Python also takes `8_080` and the digits of other scripts
    return int(text)


def _parse_float(text: str, _: object) -> float:
    if _NUMBER.fullmatch(text) is None:
        raise ValueError(text)
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def _parse_list(text: str, _: object) -> tuple[str, ...]:
    items = tuple(stripped for item in text.split(",") if (stripped := item.strip()))
    if text and not items:
        raise ValueError(text)  # "$A,$B" of two unset variables must not turn authentication off
    return items


def _parse_path(text: str, _: object) -> Path:
    if text == "":
        raise ValueError(text)  # it would mean the working directory
    return Path(text)


def _parse_range(text: str, _: object) -> range:
    first, dash, last = text.partition("-")
    numbers = range(_parse_int(first, int), _parse_int(last if dash else first, int) + 1)
    if not numbers or numbers[0] < 1 or numbers[-1] > ID_MAX:
        raise ValueError(text)
    return numbers


_converter = cattrs.Converter()
_converter.register_structure_hook(bool, _parse_bool)
_converter.register_structure_hook(int, _parse_int)
_converter.register_structure_hook(float, _parse_float)
_converter.register_structure_hook(range, _parse_range)
_converter.register_structure_hook(Path, _parse_path)
_converter.register_structure_hook_func(_is_list, _parse_list)


@frozen(kw_only=True)
class SettingDoc:
    """The description of one setting. `choices` are the only values that it takes, if it has such a list."""

    variable: str
    section: str
    doc: str
    default: str
    allowed: str
    choices: Sequence[str]


def setting_docs() -> Sequence[SettingDoc]:
    """Describe every setting, grouped by section."""
    return [_describe(setting) for setting in attrs.fields(Settings)]


def describe_settings() -> str:
    """Return one line for each setting with its default, under the title of its section."""
    lines = []
    for section, docs in groupby(setting_docs(), key=lambda doc: doc.section):
        lines += [
            "",
            f"{section}:",
            *(f"  {doc.variable:28} {_sentence(doc)} [{doc.default}]" for doc in docs),
        ]
    return "\n".join(lines[1:])


def _sentence(doc: SettingDoc) -> str:
    return f"{doc.doc}: {', '.join(doc.choices)}" if doc.choices else doc.doc


def _describe(setting: "attrs.Attribute[Any]") -> SettingDoc:
    return SettingDoc(
        variable=variable_of(setting),
        section=setting.metadata["section"],
        doc=setting.metadata["doc"],
        default=_default(setting.default),
        allowed=allowed_values(setting),
        choices=setting.metadata["choices"],
    )


def _default(value: object) -> str:
    match value:
        case None | ():
            return "none"
        case bool():
            return "on" if value else "off"
        case float():
            return f"{value:g}"
        case range():
            return f"{value[0]}-{value[-1]}"
    return str(value)
