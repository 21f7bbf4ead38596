"""The sandbox's configuration file: where it lives, where it listens, and how impatient it is."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, field_validator

SERVERS = ("plane", "gitea", "telegram", "production")


class SandboxConfig(BaseModel):
    """One JSON file. Only `home` is required; port 0 means the port of the last run, else any free one."""

    model_config = ConfigDict(extra="forbid")

    home: Path
    host: str = "127.0.0.1"
    plane_port: int = 0
    gitea_port: int = 0
    telegram_port: int = 0
    production_port: int = 0
    plane_public_url: str | None = None
    gitea_public_url: str | None = None

    plane_rate_limit: int = Field(default=60, ge=1, description="Requests a minute for each token.")
    plane_activity_delay: float = Field(default=0.05, ge=0, description="Seconds until history and webhooks.")
    plane_webhook_timeout: float = Field(default=30, gt=0)
    plane_retry_base: float = Field(default=600, ge=0, description="Each retry waits between 0 and so many seconds.")

    gitea_webhook_timeout: float = Field(default=5, gt=0)
    gitea_conflict_check_delay: float = Field(default=0.05, ge=0, description="Seconds until mergeable is known.")

    ci_slots: int = Field(default=2, ge=1)
    ci_timeout: float = Field(default=600, gt=0)
    ci_log_limit: int = Field(default=1_000_000, ge=1000, description="Bytes of a log that are kept.")
    ci_prefix: list[str] = Field(
        default_factory=list,
        description="Put before every CI command; {workdir} is its checkout. For isolation tools.",
    )

    @field_validator("home")
    @classmethod
    def _absolute(cls, home: Path) -> Path:
        """Programs are started in other folders, so a relative path would mean many places."""
        return home.resolve()

    def port(self, server: str) -> int:
        """The configured port of one of `SERVERS`."""
        return int(getattr(self, f"{server}_port"))
