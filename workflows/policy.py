"""`.orch/pipeline.toml`: policy versioned with the code it governs, read from the base branch only."""

import re
import tomllib
from datetime import timedelta
from hashlib import sha256
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from workflows.model import DEFAULT_CAP, Policy, Repository, Role, Stage, Terms
from workflows.problems import explain

PATH = ".orch/pipeline.toml"
SECRET_PREFIX = "ORCH_DEPLOY_SECRET_"  # noqa: S105 - a name
"""Begins the variables in which a worker is given the secrets that a policy names."""
_SHORTEST, _LONGEST = timedelta(seconds=10), timedelta(hours=24)
_UNITS = {"h": "hours", "m": "minutes", "s": "seconds"}


def _says_something(value: str) -> str:
    if not value.strip():
        raise ValueError("is empty; write a command, or take the line out")
    return value


def _duration(value: Any) -> timedelta:
    """`15m`, `90s`, `1h30m`."""
    text = value if isinstance(value, str) else ""
    parts = re.findall(r"(\d{1,6})([hms])", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f'{value!r} is no duration; write it as "15m", "90s" or "1h30m"')
    length = sum((timedelta(**{_UNITS[unit]: int(number)}) for number, unit in parts), timedelta())
    if not _SHORTEST <= length <= _LONGEST:
        raise ValueError(f"{text} is out of range; choose between 10s and 24h")
    return length


def _waits(stage: Stage) -> Stage:
    if stage is Stage.DONE:
        raise ValueError("nothing waits in done; take the line out")
    return stage


def _secret_name(value: str) -> str:
    taken = value.startswith(("ORCH_", "LD_")) or value in {"PATH", "HOME", "LANG", "TERM"} or value.endswith("_FILE")
    if taken or not re.fullmatch(r"[A-Z][A-Z0-9_]{0,99}", value):
        raise ValueError(
            f"{value!r} cannot name a secret; use capitals, digits and _, no name of the system, "
            "nothing that begins with ORCH_ or LD_ or ends with _FILE"
        )
    return value


_Command = Annotated[str, AfterValidator(_says_something)]
_Runner = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$")]
_SecretName = Annotated[str, AfterValidator(_secret_name)]
_Model = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/@\[\]-]{0,99}$")]
_Grace = Annotated[timedelta, BeforeValidator(_duration)]


class _Commands(BaseModel):
    model_config = ConfigDict(extra="forbid")

    test: _Command
    staging: _Command | None = None
    production: _Command
    rollback: _Command | None = None


class _Probes(BaseModel):
    model_config = ConfigDict(extra="forbid")

    staging: _Command | None = None
    production: _Command | None = None


class _Deploy(BaseModel):
    model_config = ConfigDict(extra="forbid")

    secrets: tuple[_SecretName, ...] = ()
    staging_secrets: tuple[_SecretName, ...] = ()
    repeatable: bool = False


class _Terms(BaseModel):
    """What may be said of all runs or of one role's; what is left out is inherited."""

    model_config = ConfigDict(extra="forbid")

    runner: _Runner | None = None
    model: _Model | None = None
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    max_turns: Annotated[int, Field(ge=1, le=2000)] | None = None
    max_budget_usd: Annotated[float, Field(gt=0, le=1000)] | None = None
    attempts: Annotated[int, Field(ge=1, le=50)] | None = None

    def over(self, inherited: Terms) -> Terms:
        """The complete terms."""
        said = self.model_dump(exclude_none=True, exclude={"runner", "roles"})
        return inherited.model_copy(update=said)


class _Agents(_Terms):
    runner: _Runner = "claude"
    roles: dict[Role, _Terms] = Field(default_factory=dict)

    @field_validator("roles", mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        """`reviewer = "command"` is short for a table with only a runner."""
        if not isinstance(value, dict):
            return value
        return {role: {"runner": said} if isinstance(said, str) else said for role, said in value.items()}


class _Limits(BaseModel):
    """The caps of `workflows.state.Counter`, each by its own name."""

    model_config = ConfigDict(extra="forbid")

    failures: int = Field(default=DEFAULT_CAP, ge=0, le=50)
    no_evidence: int = Field(default=DEFAULT_CAP, ge=0, le=50)
    ci_rounds: int = Field(default=DEFAULT_CAP, ge=0, le=50)
    review_rounds: int = Field(default=DEFAULT_CAP, ge=0, le=50)
    developer_retries: int = Field(default=DEFAULT_CAP, ge=0, le=50)
    merge_rounds: int = Field(default=5, ge=0, le=50)


class _Merge(BaseModel):
    model_config = ConfigDict(extra="forbid")

    gate: Literal["on", "off"] = "on"


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    commands: _Commands
    probes: _Probes = _Probes()
    deploy: _Deploy = _Deploy()
    agents: _Agents = _Agents()
    limits: _Limits = _Limits()
    merge: _Merge = _Merge()
    grace: dict[Annotated[Stage, AfterValidator(_waits)], _Grace] = Field(default_factory=dict)
    ci: Literal["required", "none"] = "required"


class PolicyFile(NamedTuple):
    """A policy, or everything that is wrong with the file."""

    policy: Policy | None
    problems: list[str]

    @property
    def problem(self) -> str:
        """All problems in one line, for a person who is asked to mend them."""
        first, *others = self.problems or [""]
        where = first.partition(": ")[0]
        return " | ".join([first, *(other.removeprefix(f"{where}: ") for other in others)])


def read_policy(content: bytes | None, where: str) -> PolicyFile:
    """Validate the file; a missing or broken one is a problem to be mended, never a default.

    `production = "none"` is the explicit way to say that nothing is deployed.
    """
    if content is None:
        return _wrong(f"{where} is missing; add it with at least commands.test and commands.production")
    try:
        parsed = _File.model_validate(tomllib.loads(content.decode()))
    except UnicodeDecodeError:
        return _wrong(f"{where}: is not TOML: it is not UTF-8 text; save it as UTF-8")
    except tomllib.TOMLDecodeError as error:
        return _wrong(f"{where}: is not TOML: {error}; mend it there")
    except ValidationError as error:
        return PolicyFile(None, explain(error, where, _File))
    return PolicyFile(_policy(parsed, sha256(content).hexdigest()[:12]), [])


def merge_gate_off(repository: Repository, *, enabled: bool, repositories: str, policy: bool) -> str:
    """Why the merge gate is off for a repository, in words for people; empty where it is on.

    Args:
        repository: the repository.
        enabled: ORCH_MERGE_GATE_ENABLED.
        repositories: ORCH_MERGE_GATE_REPOS; empty means all.
        policy: what the repository's own policy says.
    """
    names = {name.strip().casefold() for name in repositories.split(",") if name.strip()}
    because = ""
    if not enabled:
        because = "ORCH_MERGE_GATE_ENABLED"
    elif names and str(repository).casefold() not in names:
        because = "ORCH_MERGE_GATE_REPOS"
    elif not policy:
        because = ".orch/pipeline.toml"
    return f"merge gate off for {repository} ({because})" if because else ""


def _wrong(problem: str) -> PolicyFile:
    return PolicyFile(None, [problem])


def _policy(parsed: _File, digest: str) -> Policy:
    production = parsed.commands.production
    agents = parsed.agents
    terms = agents.over(Terms())
    return Policy(
        test=parsed.commands.test,
        staging=parsed.commands.staging,
        production=None if production == "none" else production,
        rollback=parsed.commands.rollback,
        probe_staging=parsed.probes.staging,
        probe_production=parsed.probes.production,
        secrets=parsed.deploy.secrets,
        staging_secrets=parsed.deploy.staging_secrets,
        repeatable=parsed.deploy.repeatable,
        ci=parsed.ci,
        runner=agents.runner,
        runners={role: said.runner for role, said in agents.roles.items() if said.runner},
        terms=terms,
        role_terms={role: said.over(terms) for role, said in agents.roles.items()},
        merge_gate=parsed.merge.gate == "on",
        caps=parsed.limits.model_dump(),
        graces=parsed.grace,
        digest=digest,
    )
