"""What a server is told: by METERBOOK_… in the environment, over a TOML file, over defaults.

`meterbook config` shows what holds, and from where.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from meterbook.errors import InvalidSettings
from meterbook.settings_file import FILE, FILE_VARIABLE, settings_file

PREFIX = "METERBOOK_"
OTHERS = frozenset({FILE_VARIABLE, "METERBOOK_TEST_URL", "METERBOOK_TEST_SEED", "METERBOOK_SCREENSHOTS"})
"""Variables of our prefix that are no setting."""
MIB = 1024 * 1024


class Settings(BaseSettings):
    """Each field is METERBOOK_ and its name in capitals, or its name in the file. Durations end in their unit."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True, env_ignore_empty=True)
    file: ClassVar[Path] = FILE

    url: SecretStr | None = Field(
        default=None, description="PostgreSQL, postgresql://…; without one, the embedded engine."
    )
    home: Path = Field(default=Path(".meterbook"), description="Folder of the embedded engine.")
    catalog: Path | None = Field(
        default=None, description="A catalog of plans, TOML; without one, the shipped example."
    )
    connections_max: int = Field(default=10, ge=2, le=1000, description="Connections to PostgreSQL.")

    host: str = Field(default="127.0.0.1", description="Address to listen at.")
    port: int = Field(default=8080, ge=0, le=65535, description="Port to listen at; 0 takes a free one.")
    worker: bool = Field(default=True, description="Fold, sweep and relay in the same process.")
    metrics_open: bool = Field(default=False, description="Serve /metrics without a key.")
    log_format: str = Field(default="json", pattern="^(json|text)$", description="json, or text for people.")
    access_log: bool = Field(default=True, description="One line a request.")

    traces: bool = Field(
        default=False, description="Send OpenTelemetry's traces where OTEL_EXPORTER_OTLP_ENDPOINT says."
    )

    console: bool = Field(default=True, description="Serve the console, pages for people, at /console.")
    console_secret: SecretStr = Field(
        default=SecretStr(""),
        description="Signs sessions and customers' links, 32 characters or more; without one they end with the process.",
    )
    session_s: int = Field(default=43_200, ge=60, le=2_592_000, description="Signed in to the console for so long.")
    embed_origins: str = Field(
        default="",
        pattern=r"^(https?://[A-Za-z0-9.*:-]+( |$))*$",
        description="Who may show customers' pages in a frame: https://app.example.com, several by spaces.",
    )

    stripe_api_key: SecretStr = Field(default=SecretStr(""), description="Secret key of the Stripe account.")
    stripe_webhook_secrets: SecretStr = Field(
        default=SecretStr(""), description="Webhook secrets by commas: two while one is replaced."
    )
    stripe_api_base: str | None = Field(default=None, description="Another Stripe, for tests.")

    entries_per_request_max: int = Field(default=10_000, ge=1, le=1_000_000, description="Entries in a batch.")
    body_bytes_max: int = Field(default=16 * MIB, ge=1024, description="Bytes of a request's body.")
    line_bytes_max: int = Field(default=64 * 1024, ge=1024, description="Bytes of a line of NDJSON.")
    requests_max: int = Field(default=1000, ge=1, description="Requests in work at once; more are asked to come again.")
    header_timeout_s: int = Field(default=10, ge=1, description="Until a request's headers are there.")
    body_pause_s: int = Field(default=10, ge=1, description="Longest pause within a request's body.")
    body_timeout_s: int = Field(default=60, ge=1, description="Until a request's body is there.")
    send_timeout_s: int = Field(default=30, ge=1, description="Until a client takes the next part of an answer.")
    keep_alive_s: int = Field(default=30, ge=1, description="An idle connection is kept.")
    shutdown_s: int = Field(default=20, ge=1, description="Requests in work may finish after SIGTERM.")
    key_cache_s: int = Field(
        default=5, ge=0, le=300, description="A key is believed without asking: so long a revoked one works."
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        del dotenv_settings, file_secret_settings
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, cls.file)

    @property
    def webhook_secrets(self) -> tuple[str, ...]:
        return tuple(filter(None, map(str.strip, self.stripe_webhook_secrets.get_secret_value().split(","))))


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting as it is in force. `source`: an option, the environment, the file or the default. A secret is shown as stars."""

    name: str
    value: str
    source: str
    meaning: str


def read_settings(**options: object) -> Settings:
    """`options` that are not None win over the environment and the file. Raises `InvalidSettings`, which names every mistake."""
    file = settings_file()
    told = {name: value for name, value in options.items() if value is not None}
    chosen = type("Settings", (Settings,), {"file": file, "__annotations__": {"file": ClassVar[Path]}})
    try:
        read: Settings = chosen(**told)
    except ValidationError as wrong:
        raise InvalidSettings([_mistake(each) for each in wrong.errors(include_input=False)]) from None
    except ValueError as wrong:  # no TOML
        raise InvalidSettings([f"{file}: {wrong}"]) from None
    return read


def in_force(settings: Settings, options: Mapping[str, object]) -> list[Setting]:
    """Every setting, with where it comes from."""
    in_file = TomlConfigSettingsSource(type(settings), type(settings).file)()
    return [
        Setting(
            name,
            _shown(getattr(settings, name)),
            _source(name, options, in_file, type(settings).file),
            field.description or "",
        )
        for name, field in type(settings).model_fields.items()
    ]


def unknown_variables() -> list[str]:
    """Variables of our prefix that set nothing: a misspelt one would go unnoticed otherwise."""
    known = {PREFIX + name.upper() for name in Settings.model_fields} | OTHERS
    return sorted(name for name in os.environ if name.upper().startswith(PREFIX) and name.upper() not in known)


def _source(name: str, options: Mapping[str, object], in_file: Mapping[str, Any], file: Path) -> str:
    variable = PREFIX + name.upper()
    if options.get(name) is not None and str(options[name]) != os.environ.get(variable):  # a command reads some of both
        return f"option --{name.replace('_', '-')}"
    if os.environ.get(variable):
        return variable
    return str(file) if name in in_file else "default"


def _shown(value: object) -> str:
    match value:
        case SecretStr():
            return "********" if value.get_secret_value() else ""
        case None:
            return ""
        case bool():
            return str(value).lower()
        case _:
            return str(value)


def _mistake(error: Mapping[str, Any]) -> str:
    name = ".".join(map(str, error["loc"]))
    return f"{name} ({PREFIX}{name.upper()}): {error['msg']}"
