"""What is wrong with a configuration, in one line each: `SOURCE: what; how to mend`. No I/O: a reader is handed in.

Both processes explain their errors with these functions; each keeps its own settings and secrets.
"""

from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from typing import Annotated, Any, get_args

from pydantic import AfterValidator, BaseModel, SecretStr, ValidationError
from pydantic.fields import FieldInfo

PREFIX = "ORCH_"
EX_CONFIG = 78
"""The exit code for a configuration that can not be started with (sysexits.h): no crash, so no restart helps."""

Location = tuple[int | str, ...]


def _not_empty(secret: SecretStr) -> SecretStr:
    if not secret.get_secret_value().strip():
        raise ValueError("is empty")
    return secret


Secret = Annotated[SecretStr, AfterValidator(_not_empty)]
"""A secret that says something."""


def nearest(word: str, known: Iterable[str]) -> str:
    """The known word that was probably meant, or nothing."""
    close = get_close_matches(word.lower(), list(known), n=1, cutoff=0.7)
    return close[0] if close else ""


# -- files -------------------------------------------------------------------------------------------------


def explain(error: ValidationError, where: str, model: type[BaseModel]) -> list[str]:
    """Every fault of a file that was read as `model`; `where` names the file."""
    faults = error.errors(include_url=False)
    return [f"{where}: {_key(fault['loc'])}{_fault(dict(fault), model)}" for fault in faults]


def _key(location: Location) -> str:
    parts = [str(part) for part in location if part != "[key]"]
    return f"{'.'.join(parts)}: " if parts else ""


def _fault(fault: dict[str, Any], model: type[BaseModel]) -> str:
    kind, location, message = fault["type"], fault["loc"], str(fault["msg"]).removeprefix("Value error, ")
    if kind == "missing":
        return f"is missing; add it{_about(model, location)}"
    if kind == "extra_forbidden":
        known = _known_keys(model, location[:-1])
        meant = nearest(str(location[-1]), known)
        return f"is not known; did you mean {meant}?" if meant else f"is not known; known here: {', '.join(known)}"
    if "; " in message:  # it says how to mend it
        return message
    return f"{_lower(message)}; mend it there"


def _about(model: type[BaseModel], location: Location) -> str:
    owner = _model_at(model, location[:-1])
    field = owner.model_fields.get(str(location[-1])) if owner else None
    return f": {meaning(field)}" if field and field.description else ""


def _known_keys(model: type[BaseModel], location: Location) -> list[str]:
    owner = _model_at(model, location)
    return [field.alias or name for name, field in owner.model_fields.items()] if owner else []


def _model_at(model: type[BaseModel], location: Location) -> type[BaseModel] | None:
    """The table that a path of keys leads to; a key of a table of tables is stepped over."""
    here: Any = model
    for part in location:
        if isinstance(here, type) and issubclass(here, BaseModel):
            field = here.model_fields.get(str(part))
            here = field.annotation if field else None
        else:
            here = next((inner for inner in reversed(get_args(here)) if inner is not type(None)), None)
    while here is not None and not (isinstance(here, type) and issubclass(here, BaseModel)):
        here = next((inner for inner in reversed(get_args(here)) if inner is not type(None)), None)
    return here


# -- settings of a process ---------------------------------------------------------------------------------


def variable(field: str) -> str:
    """The environment variable of a field."""
    return f"{PREFIX}{field.upper()}"


def variables(model: type[BaseModel]) -> list[str]:
    """Every variable a process reads, those that name a secret's file included."""
    names = [variable(field) for field in model.model_fields]
    return names + [f"{variable(field)}_FILE" for field in secrets(model)]


def secrets(model: type[BaseModel]) -> list[str]:
    """The fields that are never shown."""
    return [name for name, field in model.model_fields.items() if _is_secret(field.annotation)]


def _is_secret(annotation: Any) -> bool:
    return annotation is SecretStr or any(_is_secret(inner) for inner in get_args(annotation))


def meaning(field: FieldInfo) -> str:
    """What a setting is, as a noun phrase that fits into a sentence: its docstring's first one."""
    text = " ".join((field.description or "").split())
    return _lower(text.split(". ")[0].split(": ")[0].rstrip(".").replace("`", ""))


def secret_files(
    environment: Mapping[str, str], model: type[BaseModel], read: Callable[[str], str]
) -> tuple[dict[str, Any], list[str]]:
    """The secrets that `<NAME>_FILE` names, by field, and what is wrong with those files."""
    found: dict[str, Any] = {}
    problems: list[str] = []
    for field in secrets(model):
        name = variable(field)
        path = environment.get(f"{name}_FILE")
        if path is None:
            continue
        try:
            if name in environment:
                problems.append(f"{name}_FILE: {name} is set too; unset one of them")
            elif text := read(path).strip():
                found[field] = SecretStr(text)
            else:
                problems.append(f"{name}_FILE: {path} is empty; write the secret into it")
        except (OSError, UnicodeDecodeError) as error:
            problems.append(f"{name}_FILE: {path} can not be read ({cause(error)}); name a readable file")
    return found, problems


def explain_settings(error: ValidationError, model: type[BaseModel], files: list[str]) -> list[str]:
    """Every fault of a process's settings; a secret whose file is at fault (`files`) is not named again.

    Values are never shown: a secret may have been put into the wrong variable.
    """
    named = {problem.split("_FILE:")[0] for problem in files}
    faults = error.errors(include_url=False, include_input=False)
    names = {variable(str(fault["loc"][0])) for fault in faults} & named
    return [
        _setting_fault(str(fault["loc"][0]), fault["type"], fault["msg"], model)
        for fault in faults
        if variable(str(fault["loc"][0])) not in names
    ]


def _setting_fault(field: str, kind: str, message: str, model: type[BaseModel]) -> str:
    name, info = variable(field), model.model_fields[field]
    if kind == "missing":
        or_file = f" (or {name}_FILE)" if _is_secret(info.annotation) else ""
        return f"{name}: is not set; set it{or_file} to {meaning(info)}"
    what = message.removeprefix("Value error, ")
    if what == "is empty":
        unset = "" if info.is_required() else ", or unset it"
        return f"{name}: is empty; set it to {meaning(info)}{unset}"
    return f"{name}: {what if '; ' in what else f'{_lower(what)}; set it to {meaning(info)}'}"


def unknown_variables(names: Iterable[str], known: Iterable[str]) -> list[str]:
    """A warning for each variable with our prefix that nobody reads."""
    by_lower = {name.lower(): name for name in known}
    warnings = []
    for name in sorted(names):
        if not name.startswith(PREFIX) or name.lower() in by_lower:
            continue
        meant = nearest(name, by_lower)
        how = f"did you mean {by_lower[meant]}?" if meant else "unset it, or see `orch config show` for all there are"
        warnings.append(f"{name}: is not known and has no effect; {how}")
    return warnings


def cause(error: OSError | UnicodeDecodeError) -> str:
    """Why a file cannot be read."""
    return error.strerror or type(error).__name__ if isinstance(error, OSError) else "it is not UTF-8 text"


def _lower(text: str) -> str:
    """A beginning without a capital, unless it is a name such as PostgreSQL."""
    word = text.split(" ", maxsplit=1)[0]
    return text[:1].lower() + text[1:] if word[1:] == word[1:].lower() and word not in _NAMES else text


_NAMES = {"Plane", "Plane's", "Gitea", "Gitea's", "Temporal", "Temporal's", "Telegram", "Telegram's"}
