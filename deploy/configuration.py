"""The configuration of the whole: what there is to set, what is set and where, and everything that is wrong with it.

The only module that knows the settings of both processes; each process knows its own alone.
`python -m deploy.configuration --write` renews what is generated from the settings.
"""

import os
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

from pydantic import BaseModel, TypeAdapter
from pydantic.fields import FieldInfo

from activities.settings import ConfigError, WorkerSettings, load_settings
from api.settings import ApiSettings, ConfigurationError, load
from workflows import policy
from workflows.problems import cause, secrets, unknown_variables, variable, variables
from workflows.projects import OrchConfig, parse_orch_toml

PROCESSES: dict[str, type[BaseModel]] = {"worker": WorkerSettings, "api": ApiSettings}
OTHER_VARIABLES = (
    "ORCH_STACK_HOME", "ORCH_RUN_ID", "ORCH_SHA", "ORCH_FAILED_SHA", "ORCH_ENVIRONMENT", "ORCH_REPOSITORY",
)  # fmt: skip
"""What Orch itself puts into the environment of what it starts."""
_USER_INFO = re.compile(r"//[^/@\s]*@")


class Checked(NamedTuple):
    """What a check found: one line each, `SOURCE: what; how to mend`."""

    problems: list[str]
    warnings: list[str]


class Setting(NamedTuple):
    """One thing that can be set. The value of a secret is not in here."""

    name: str
    value: str
    source: str
    meaning: str
    used_by: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return self._asdict()


class Described(NamedTuple):
    """A variable as its settings classes describe it."""

    name: str
    field: str
    info: FieldInfo
    secret: bool
    used_by: tuple[str, ...]

    @property
    def text(self) -> str:
        """Its docstring on one line."""
        return " ".join((self.info.description or "").split())

    @property
    def default(self) -> str:
        """The default as it would be written, or nothing where there is none that could be."""
        value = self.info.default
        return "" if self.info.is_required() or self.info.default_factory or value is None else _written(value)


def described() -> list[Described]:
    """Every variable, the worker's first, each once."""
    fields: dict[str, Described] = {}
    for process, model in PROCESSES.items():
        hidden = secrets(model)
        for field, info in model.model_fields.items():
            before = fields[field].used_by if field in fields else ()
            known = fields[field].info if field in fields else info
            fields[field] = Described(variable(field), field, known, field in hidden, (*before, process))
    return list(fields.values())


def known_variables() -> set[str]:
    """Every variable of ours that means something to somebody."""
    return {name for model in PROCESSES.values() for name in variables(model)} | set(OTHER_VARIABLES)


def warnings(environment: Mapping[str, str]) -> list[str]:
    """What is set and has no effect."""
    # Which deploy secrets are read is said by each repository's policy.
    ours = [name for name in environment if not name.startswith(policy.SECRET_PREFIX)]
    return unknown_variables(ours, known_variables())


# -- check -------------------------------------------------------------------------------------------------


def check() -> Checked:
    """Check the environment of both processes, and the `orch.toml` it names."""
    problems: list[str] = []
    try:
        load_settings()
    except ConfigError as error:
        problems += error.problems
    try:
        load()
    except ConfigurationError as error:
        problems += error.problems
    path = os.environ.get("ORCH_CONFIG", "")
    problems += _ids(path) if path else []
    return Checked(list(dict.fromkeys(problems)), warnings(os.environ))


def check_file(path: Path) -> Checked:
    """Check a `.orch/pipeline.toml` or an `orch.toml`, told apart by name, else by content."""
    try:
        content = path.read_bytes()
        text = content.decode()
    except (OSError, UnicodeDecodeError) as error:
        return Checked([f"{path}: can not be read ({cause(error)}); name a readable file"], [])
    if _is_policy(path, text):
        return Checked(policy.read_policy(content, str(path)).problems, [])
    _, problems = parse_orch_toml(text, str(path))
    return Checked(problems or _ids(str(path)), [])


def _is_policy(path: Path, text: str) -> bool:
    if path.name in {"pipeline.toml", "orch.toml"}:
        return path.name == "pipeline.toml"
    try:
        tables = set(tomllib.loads(text))
    except tomllib.TOMLDecodeError:
        return False
    ours = set(OrchConfig.model_fields)
    return not tables & ours and bool(tables & {"commands", "probes", "agents", "limits", "grace", "merge", "ci"})


def _ids(path: str) -> list[str]:
    """Ids that cannot be Plane's: a name or an e-mail address written in place of a UUID matches nobody."""
    try:
        config, _ = parse_orch_toml(Path(path).read_text(encoding="utf-8"), path)
    except (OSError, UnicodeDecodeError):
        return []
    problems = []
    for key, project in config.projects.items() if config else ():
        ids = [("plane_project_id", project.plane_project_id)]
        ids += [(name, one) for name in ("bots", "approvers") for one in sorted(getattr(project, name))]
        problems += [
            f"{path}: projects.{key}.{name}: {one!r} is no UUID; take it from the address of its page in Plane"
            for name, one in ids
            if not _is_uuid(one)
        ]
    return problems


def _is_uuid(text: str) -> bool:
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False


# -- show --------------------------------------------------------------------------------------------------


def show(sources: Mapping[str, str] | None = None) -> list[Setting]:
    """Every setting as it is now.

    Args:
        sources: where variables come from, if not from the environment.
    """
    settings = [_variable(one, sources or {}) for one in described()]
    path = os.environ.get("ORCH_CONFIG", "")
    return settings + list(_orch_toml(path)) + list(_merge_gates(path))


def _merge_gates(path: str) -> Iterator[Setting]:
    """Whether the merge gate is on for each project, as far as the environment says; its policy may switch it off."""
    try:
        config, _ = parse_orch_toml(Path(path).read_text(encoding="utf-8"), path) if path else (None, [])
        enabled = TypeAdapter(bool).validate_python(os.environ.get("ORCH_MERGE_GATE_ENABLED", "true"))
    except (OSError, ValueError):
        return
    meaning = "The repository's own .orch/pipeline.toml may also switch it off: [merge] gate."
    for key, project in config.projects.items() if config else ():
        names = os.environ.get("ORCH_MERGE_GATE_REPOS", "")
        off = policy.merge_gate_off(project.repository, enabled=enabled, repositories=names, policy=True)
        yield Setting(
            f"projects.{key}.merge_gate", off or "on", "environment" if off else "default", meaning, ("worker",)
        )


def _variable(one: Described, sources: Mapping[str, str]) -> Setting:
    value, source = None, "default"
    if (file := os.environ.get(f"{one.name}_FILE")) is not None and one.secret:
        value, source = "", f"file {file}"
    elif one.name in os.environ:
        value, source = os.environ[one.name], sources.get(one.name, "environment")
    return Setting(one.name, _shown(one, value), source if _counts(one, value) else "-", one.text, one.used_by)


def _counts(one: Described, value: str | None) -> bool:
    return value is not None or not (one.info.is_required() or one.info.get_default(call_default_factory=True) is None)


def _shown(one: Described, value: str | None) -> str:
    if one.secret:
        return "not set" if value is None else "set"
    if value is None:
        default = None if one.info.is_required() else one.info.get_default(call_default_factory=True)
        return "not set" if default is None else _written(default)
    return _without_credentials(value)


def _without_credentials(value: str) -> str:
    return _USER_INFO.sub("//***@", value)


def _written(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _orch_toml(path: str) -> Iterator[Setting]:
    """What `orch.toml` says, key by key; nothing where it cannot be used: `check` says why."""
    try:
        config, _ = parse_orch_toml(Path(path).read_text(encoding="utf-8"), path) if path else (None, [])
    except (OSError, UnicodeDecodeError):
        return
    if config is not None:
        yield from _keys(config, type(config), "", "orch.toml")


def _keys(table: BaseModel, model: type[BaseModel], prefix: str, source: str) -> Iterator[Setting]:
    for name, info in model.model_fields.items():
        value, where = getattr(table, name), "orch.toml" if name in table.model_fields_set else "default"
        if isinstance(value, dict):
            for key, inner in value.items():
                yield from _keys(inner, type(inner), f"{prefix}{name}.{key}.", source)
        elif isinstance(value, BaseModel):
            described_by = info.annotation if isinstance(info.annotation, type) else type(value)
            yield from _keys(value, described_by, f"{prefix}{name}.", source)
        else:
            text = ", ".join(sorted(value)) if isinstance(value, frozenset) else _without_credentials(str(value))
            meaning = " ".join((info.description or "").split())
            yield Setting(f"{prefix}{name}", text, where, meaning, ("worker", "api"))


def main(arguments: list[str]) -> int:
    """Print or renew what is generated."""
    from deploy import configuration_text

    root = Path(__file__).parent.parent
    reference = root / "docs/reference/configuration.md"
    if arguments == ["--env-example"]:
        sys.stdout.write(configuration_text.env_example())
        return 0
    if arguments == ["--write"]:
        (root / ".env.example").write_text(configuration_text.env_example(), encoding="utf-8")
        text = configuration_text.with_tables(reference.read_text(encoding="utf-8"))
        reference.write_text(text, encoding="utf-8")
        return 0
    sys.stderr.write("usage: python -m deploy.configuration --env-example | --write\n")
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
