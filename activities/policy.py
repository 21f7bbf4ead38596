"""`.orch/pipeline.toml`: policy versioned with the code it governs, read from the base branch only."""

import tomllib
from hashlib import sha256

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from workflows.contracts.gates import PolicyReading
from workflows.model import DEFAULT_CAP, Policy, Role

PATH = ".orch/pipeline.toml"


class _Commands(BaseModel):
    model_config = ConfigDict(extra="forbid")

    test: str = Field(min_length=1)
    staging: str | None = None
    production: str = Field(min_length=1)


class _Probes(BaseModel):
    model_config = ConfigDict(extra="forbid")

    staging: str | None = None
    production: str | None = None


class _Agents(BaseModel):
    model_config = ConfigDict(extra="forbid")

    runner: str = "claude"
    roles: dict[Role, str] = Field(default_factory=dict)


class _Limits(BaseModel):
    """The caps of `workflows.state.Counter`, each by its own name."""

    model_config = ConfigDict(extra="forbid")

    failures: int = Field(default=DEFAULT_CAP, ge=0, le=50)
    no_evidence: int = Field(default=DEFAULT_CAP, ge=0, le=50)
    ci_rounds: int = Field(default=DEFAULT_CAP, ge=0, le=50)
    review_rounds: int = Field(default=DEFAULT_CAP, ge=0, le=50)
    developer_retries: int = Field(default=DEFAULT_CAP, ge=0, le=50)
    merge_rounds: int = Field(default=5, ge=0, le=50)


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    commands: _Commands
    probes: _Probes = _Probes()
    agents: _Agents = _Agents()
    limits: _Limits = _Limits()
    ci: str = Field(default="required", pattern="^(required|none)$")


def read_policy(content: bytes | None, where: str) -> PolicyReading:
    """Validate the file; a missing or broken one is a problem to be mended, never a default.

    `production = "none"` is the explicit way to say that nothing is deployed.
    """
    if content is None:
        return PolicyReading(problem=f"{where} is missing; add it with at least commands.test and commands.production")
    try:
        parsed = _File.model_validate(tomllib.loads(content.decode()))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        return PolicyReading(problem=f"{where} is not TOML: {error}")
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, p['loc']))}: {p['msg']}" for p in error.errors())
        return PolicyReading(problem=f"{where}: {problems}")
    production = parsed.commands.production
    return PolicyReading(
        policy=Policy(
            test=parsed.commands.test,
            staging=parsed.commands.staging,
            production=None if production == "none" else production,
            probe_staging=parsed.probes.staging,
            probe_production=parsed.probes.production,
            ci=parsed.ci,
            runner=parsed.agents.runner,
            runners=parsed.agents.roles,
            caps=parsed.limits.model_dump(),
            digest=sha256(content).hexdigest()[:12],
        )
    )
