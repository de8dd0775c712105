"""Read the tenants from PYEXEC_TENANTS_FILE (TOML) and PYEXEC_API_TOKENS. Errors name the file, the line and the key.

No error contains a token or a secret."""

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn

from attrs import frozen

from pyexec.domain.tenants import DEFAULT_TENANT, Tenant, Tenants, TokenDigest, digest_of
from pyexec.domain.webhooks import SECRET_FORM, AllowedHost, WebhookPolicy, parse_secret
from pyexec.errors import SettingsError
from pyexec.settings import Settings

VARIABLE = "PYEXEC_TENANTS_FILE"
WEIGHT_MAX = 1000
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_DIGEST_PREFIX = "sha256:"
_DIGEST = re.compile(r"sha256:([0-9a-fA-F]{64})")
_NUMBERS: Mapping[str, tuple[int, int | None]] = {
    "weight": (1, WEIGHT_MAX),
    "max_running": (1, None),
    "max_queued": (0, None),
    "max_sessions": (0, None),
    "max_setups": (1, None),
}
"""The keys that are whole numbers, with their lowest and highest value."""
_KEYS = ("tokens", *_NUMBERS, "webhook_secrets")
_TABLES = 'tables such as [acme], or ["acme.com"] with quotes if the name has a dot'


def read_tenants(settings: Settings) -> Tenants:
    """Return the tenants that the settings name; raise `SettingsError` if the file cannot be used."""
    if settings.tenants_file is None:
        return Tenants.with_tokens(settings.api_tokens)
    path = settings.tenants_file
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise SettingsError(f"{VARIABLE} is {str(path)!r}, which cannot be read: {reason}") from error
    return parse_tenants(text, str(path), settings.api_tokens)


def webhook_policy(settings: Settings, tenants: Tenants) -> WebhookPolicy:
    """Return where webhooks may be sent, and the secrets that sign them."""
    return WebhookPolicy(
        hosts=tuple(map(AllowedHost.parse, settings.webhook_hosts)),
        secrets={tenant.name: tenant.webhook_secrets for tenant in tenants.configured},
        default_secrets=tuple(map(parse_secret, settings.webhook_secrets)),
    )


def parse_tenants(text: str, path: str, api_tokens: Sequence[str] = ()) -> Tenants:
    """Parse the text of the file. `api_tokens` belong to the tenant `default`, whether the file has it or not."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        # The reason says the line and the column, and quotes single characters at most.
        reason = str(error).replace("at end of document", f"at the end, line {len(text.splitlines())}")
        is_table = "key part" in reason or "table declaration" in reason
        hint = f"; allowed: {_TABLES}" if is_table else ""
        raise SettingsError(f"{VARIABLE} is {path!r}, which is not TOML: {reason}{hint}") from error
    except RecursionError as error:
        raise SettingsError(f"{VARIABLE} is {path!r}, which is nested too deeply") from error
    except ValueError as error:  # raised by `int`
        raise SettingsError(f"{VARIABLE} is {path!r}, in which a number has too many digits") from error
    return _Parser(text, path).parse(document, api_tokens)


@frozen
class _Parser:
    """Parses one file. Its text is used to find the line of a key that is wrong."""

    text: str
    path: str

    def parse(self, document: Mapping[str, Any], api_tokens: Sequence[str]) -> Tenants:
        tenants = [self._tenant(name, table) for name, table in document.items()]
        tokens = [TokenDigest(digest_of(token), DEFAULT_TENANT) for token in api_tokens]
        if api_tokens and DEFAULT_TENANT not in document:
            tenants.append(Tenant(name=DEFAULT_TENANT))
        if not tenants:
            raise SettingsError(
                f"{VARIABLE} is {self.path!r}, which names no tenant; allowed: at least one table"
            )
        owners = {token.digest: (DEFAULT_TENANT, "PYEXEC_API_TOKENS") for token in tokens}
        for name, table in document.items():
            for token in self._tokens(name, table, needed=not (api_tokens and name == DEFAULT_TENANT)):
                owner, source = owners.setdefault(token.digest, (name, f"{name}.tokens"))
                if owner != name:
                    self._fail(
                        (name, "tokens"),
                        f"contains a token that {source} has, too",
                        "each token in one tenant",
                    )
                tokens.append(token)
        return Tenants(tenants, tokens)

    def _tenant(self, name: str, table: object) -> Tenant:
        if not isinstance(table, dict):
            form = "the key below a table such as [acme]" if name in _KEYS else f"tables such as [{name}]"
            self._fail((name,), "is not a table", form)
        if _NAME.fullmatch(name) is None:
            self._fail(
                (name,), "is not a name", "at most 63 letters, digits, and after the first one also _ . -"
            )
        for key, value in table.items():
            if key not in _KEYS and isinstance(value, dict):
                self._fail((name, key), "is a table within a table", _TABLES)
            if key not in _KEYS:
                self._fail((name, key), "is unknown", ", ".join(_KEYS))
        numbers = {key: self._number(name, key, table[key]) for key in _NUMBERS if key in table}
        return Tenant(name=name, **numbers, webhook_secrets=tuple(self._webhook_secrets(name, table)))

    def _number(self, name: str, key: str, value: Any) -> int:
        lowest, highest = _NUMBERS[key]
        is_number = isinstance(value, int) and not isinstance(value, bool)
        if not is_number or value < lowest or (highest is not None and value > highest):
            limits = f"at least {lowest}" if highest is None else f"from {lowest} to {highest}"
            self._fail((name, key), f"is {value!r}", f"a whole number, {limits}")
        return int(value)

    def _tokens(self, name: str, table: Mapping[str, Any], *, needed: bool) -> Iterator[TokenDigest]:
        tokens = table.get("tokens", [])
        if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
            self._fail(
                (name, "tokens"), "is not a list of texts", 'such as tokens = ["secret", "sha256:<hex>"]'
            )
        if needed and not tokens:
            path = (name, "tokens") if "tokens" in table else (name,)
            self._fail(path, "has no token", 'at least one, such as tokens = ["secret"]')
        for number, token in enumerate(tokens, 1):
            if not token or token != token.strip():
                self._fail(
                    (name, "tokens"),
                    f"has a wrong token at position {number}",
                    "text without space around it",
                )
            digest = _DIGEST.fullmatch(token)
            if digest is None and token.startswith(_DIGEST_PREFIX):
                wanted = "sha256: and 64 hexadecimal digits, or a token in plain text"
                self._fail((name, "tokens"), f"has a wrong digest at position {number}", wanted)
            yield TokenDigest(bytes.fromhex(digest[1]) if digest else digest_of(token), name)

    def _webhook_secrets(self, name: str, table: Mapping[str, Any]) -> Iterator[bytes]:
        secrets, path = table.get("webhook_secrets", []), (name, "webhook_secrets")
        if not isinstance(secrets, list) or not all(isinstance(secret, str) for secret in secrets):
            self._fail(path, "is not a list of texts", 'such as webhook_secrets = ["whsec_…"]')
        for number, secret in enumerate(secrets, 1):
            try:
                yield parse_secret(secret)
            except ValueError:
                self._fail(path, f"has a wrong secret at position {number}", SECRET_FORM)

    def _fail(self, path: Sequence[str], problem: str, allowed: str) -> NoReturn:
        line = _line_of(self.text, path)
        key = ".".join(f'"{part}"' if not part or "." in part else part for part in path)
        raise SettingsError(f"{VARIABLE} {self.path!r}, line {line}: {key} {problem}; allowed: {allowed}")


def _line_of(text: str, path: Sequence[str]) -> int:
    """Return the number of the line where the key begins.

    tomllib reports no positions. But the key begins after the last line up to which the document parses without it."""
    lines = text.splitlines(keepends=True)
    begin = 1
    for number in range(1, len(lines) + 1):
        try:
            document: Any = tomllib.loads("".join(lines[:number]))
        except tomllib.TOMLDecodeError:
            continue
        if _has(document, path):
            return begin
        begin = number + 1
    return begin


def _has(document: Any, path: Sequence[str]) -> bool:
    for key in path:
        if not isinstance(document, dict) or key not in document:
            return False
        document = document[key]
    return True
