"""Settings of one process, from `MINGLUO_…` environment variables.

From embedded to cluster is three URLs: `MINGLUO_DATABASE_URL`, `MINGLUO_AMQP_URL`, `MINGLUO_REDIS_URL`.
"""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from gateway.errors import ConfigError

PACKAGE = Path(__file__).parent


def data_folder(name: str) -> Path:
    """Return `templates` or `config`: inside an installed wheel, else at the checkout's root."""
    installed = PACKAGE / "_data" / name
    return installed if installed.is_dir() else PACKAGE.parent / name


class Settings(BaseSettings):
    """What a process needs to know before it can read anything else."""

    model_config = SettingsConfigDict(env_prefix="MINGLUO_", extra="forbid", frozen=True)

    data: Path = Path("var")
    """Where the embedded database, keys and sockets live."""
    config: Path = Field(default_factory=lambda: data_folder("config"))
    templates: Path = Field(default_factory=lambda: data_folder("templates"))
    channels: Path | None = None
    """`channels.toml`; default: the one in `config`."""
    geometry: tuple[Path, ...] = ()
    """GeoJSON files with township polygons."""
    database_url: SecretStr = SecretStr("")
    amqp_url: SecretStr = SecretStr("")
    redis_url: SecretStr = SecretStr("")
    secret_key: SecretStr = SecretStr("")
    """Base64 of 32 bytes that encrypt names and addresses; embedded: made once in `data`."""
    host: str = "127.0.0.1"
    port: int = 8080
    public_url: str = ""
    """How providers reach us; default http://host:port."""
    namespace: str = "mingluo"
    """Prefix of queues and Redis keys."""
    log_level: str = "info"
    reads_per_minute: int = Field(600, ge=1)
    """Requests of one API token that only read; see `gateway.api.limit`."""
    writes_per_minute: int = Field(120, ge=1)
    """Requests of one API token that submit or decide; a red warning is never refused by it."""

    @property
    def keys(self) -> Path:
        """Where the keys are that sign what we publish."""
        return self.data / "keys"

    @property
    def device_keys(self) -> Path:
        """Where the keys are that sign what loudspeakers are told."""
        return self.keys / "device"

    @property
    def embedded(self) -> bool:
        """Whether this is one process with SQLite, its own broker and its own Valkey."""
        return not self.amqp_url.get_secret_value()

    def database(self) -> str:
        """Return the database URL.

        Raises:
            ConfigError: several processes without PostgreSQL.
        """
        url = self.database_url.get_secret_value()
        if not self.embedded and not url.startswith("postgres"):
            raise ConfigError(
                "MINGLUO_AMQP_URL is set, so processes share work: set MINGLUO_DATABASE_URL=postgresql://…"
            )
        return url or f"sqlite:///{(self.data / 'mingluo.db').absolute()}"


def on_loopback(host: str) -> bool:
    """Whether a host name or address is this machine."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
