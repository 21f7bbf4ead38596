"""Which names we hand to git. Narrower than git's own rules: what passes here passes `git check-ref-format`.

`git check-ref-format refs/heads/-x` accepts a leading dash, and `--upload-pack=...` in option position runs a
program (research/reliability_ux.md, T18), so a name is checked before it comes near a command line.
"""

import re

from activities.adapters.errors import InvalidName

_MAX = 250
_COMPONENT = re.compile(r"[\w#+=,@][\w#+=,@.-]*")
_SHA = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_TASK = re.compile(r"task/[A-Za-z0-9][A-Za-z0-9._-]*(?:/[A-Za-z0-9][A-Za-z0-9._-]*)*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def check_branch(name: str) -> str:
    """A short branch name such as `task/DEMO-1`, returned as it is.

    Raises:
        InvalidName: it is empty, too long, a full ref, `HEAD`, or holds anything that git could take for
            more than a name.
    """
    parts = name.split("/")
    if (
        not 0 < len(name) <= _MAX
        or parts[0] == "refs"
        or name in ("HEAD", "@")
        or ".." in name
        or not all(_COMPONENT.fullmatch(part) for part in parts)
        or any(part.endswith((".", ".lock")) for part in parts)
    ):
        raise InvalidName(f"{name[:_MAX]!r} is not a branch name that Orch accepts")
    return name


def is_task_branch(name: str) -> bool:
    """Whether a name that passed `check_branch` is one that Orch gives: `task/...` in plain ASCII, in this case.

    Another script's letters look like ours, and some servers take case variants for the same branch.
    """
    return _TASK.fullmatch(name) is not None


def check_ref(name: str) -> str:
    """A full ref such as `refs/heads/main`; raises InvalidName otherwise."""
    if not name.startswith("refs/") or "/" not in name[5:]:
        raise InvalidName(f"{name[:_MAX]!r} is not a full ref name")
    check_branch(name[5:])
    return name


def check_sha(sha: str) -> str:
    """A full object id, 40 or 64 lower-case hex digits; raises InvalidName otherwise."""
    if _SHA.fullmatch(sha) is None:
        raise InvalidName(f"{sha[:_MAX]!r} is not a full commit id")
    return sha


def is_sha(text: str) -> bool:
    """Whether the text is a full object id."""
    return _SHA.fullmatch(text) is not None


def check_path(path: str) -> str:
    """A path of a file inside a repository, with forward slashes; raises InvalidName otherwise."""
    parts = path.split("/")
    if (
        not 0 < len(path) <= 4096
        or _CONTROL.search(path)
        or any(part in ("", ".", "..") or part.lower() == ".git" for part in parts)
    ):
        raise InvalidName(f"{path[:_MAX]!r} is not a path inside a repository")
    return path
