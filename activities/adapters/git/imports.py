"""Taking commits out of a clone that an agent could write to.

Fetching from the clone itself would start `git upload-pack` inside it, which reads its configuration. So git
is never pointed at the clone: we read the ref as a plain file, and let git see only the clone's object store,
as an alternate of a throw-away repository of our own. Every new object is checked on its way in.
The agent must have ended: what is checked here must not change between the check and the use.
"""

import asyncio
import os
import shutil
import stat
import uuid
from pathlib import Path

from activities.adapters.errors import GitError
from activities.adapters.git.command import git
from activities.adapters.git.names import is_sha
from activities.adapters.locks import WorkspaceLock

_MAX_PACKED_REFS = 16 * 1024 * 1024
_ALTERNATES = ("alternates", "http-alternates")


async def import_commit(
    mirror: Path,
    clone: Path,
    *,
    ref: str,
    as_ref: str,
    lock: WorkspaceLock,
    timeout: float,  # noqa: ASYNC109 - given to git
) -> str:
    """Copy the commit of `ref` in `clone`, with all it needs, into `mirror` as `as_ref`; return its id.

    Raises:
        GitError: `unsafe`: the clone is not a plain repository; `failed`: no such ref, or a bad object.
    """
    sha = await asyncio.to_thread(_read_ref, clone, ref)
    objects = await asyncio.to_thread(_object_store, clone)
    bridge = mirror.with_name(f".{mirror.name}.new-bridge-{uuid.uuid4().hex}")
    try:
        await asyncio.to_thread(bridge.mkdir)
        await git(("init", "--bare", "--quiet", "--template="), git_dir=bridge, lock=lock)
        await asyncio.to_thread((bridge / "objects/info/alternates").write_text, f"{objects}\n")
        await git(("update-ref", "refs/heads/import", f"{sha}"), git_dir=bridge, lock=lock)
        await git(
            (
                "fetch",
                "--quiet",
                "--no-tags",
                "--no-write-fetch-head",
                "--no-auto-maintenance",
                "--end-of-options",
                str(bridge),
                f"+refs/heads/import:{as_ref}",
            ),
            git_dir=mirror,
            transport="file",
            lock=lock,
            timeout=timeout,
            config=(("fetch.fsckObjects", "true"),),
        )
    except GitError as error:
        if error.kind in ("disk", "timeout", "locked"):
            raise
        # Whatever is corrupt here is the clone: the mirror has not accepted anything.
        raise GitError(f"cannot import {ref}: {error}", kind="failed", exit_code=error.exit_code) from None
    finally:
        await asyncio.to_thread(shutil.rmtree, bridge, ignore_errors=True)
    return sha


def _object_store(clone: Path) -> Path:
    """The clone's own objects; a link or an alternate would let it lend itself objects it may not read."""
    git_dir = _plain_directory(clone / ".git")
    objects = _plain_directory(git_dir / "objects")
    _plain_directory(objects / "info", missing_ok=True)
    for name in _ALTERNATES:
        if os.path.lexists(objects / "info" / name):
            raise GitError(f"the clone has objects/info/{name}", kind="unsafe")
    _refuse_links(objects)
    if "\n" in str(objects) or str(objects).startswith('"'):
        raise GitError("the clone's path cannot be written as an alternate", kind="unsafe")
    return objects.absolute()


def _refuse_links(objects: Path) -> None:
    """A link to another repository's object, or a pipe to wait at for ever, is no plain object store."""
    for directory, _, _ in os.walk(objects):
        with os.scandir(directory) as entries:
            for entry in entries:
                if not (entry.is_file(follow_symlinks=False) or entry.is_dir(follow_symlinks=False)):
                    raise GitError(f"objects/{entry.name} in the clone is not plain", kind="unsafe")


def _plain_directory(path: Path, *, missing_ok: bool = False) -> Path:
    try:
        mode = path.lstat().st_mode
    except OSError:
        if missing_ok:
            return path
        raise GitError(f"the clone has no {path.name}", kind="unsafe") from None
    if not stat.S_ISDIR(mode):
        raise GitError(f"{path.name} in the clone is not a directory", kind="unsafe")
    return path


def _read_ref(clone: Path, ref: str) -> str:
    """The id a ref holds, from its own file or from packed-refs, following no link of any kind."""
    git_dir = _plain_directory(clone / ".git")
    loose = _read(git_dir, ref.split("/"), 200)
    if loose is not None:
        text = loose.decode("ascii", "replace").strip()
    else:
        packed = _read(git_dir, ["packed-refs"], _MAX_PACKED_REFS) or b""
        lines = (line.split(" ", 1) for line in packed.decode("utf-8", "replace").splitlines())
        text = next((pair[0] for pair in lines if len(pair) == 2 and pair[1] == ref), "")
    if not text:
        raise GitError(f"the clone has no {ref}")
    if not is_sha(text):
        raise GitError(f"{ref} in the clone does not hold a commit id", kind="unsafe")
    return text


def _read(root: Path, parts: list[str], max_bytes: int) -> bytes | None:
    """A regular file below `root`; None if it is missing. Each step is opened without following links."""
    directory = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        for part in parts[:-1]:
            below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=directory)
            os.close(directory)
            directory = below
        file = os.open(parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=directory)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise GitError(f"{'/'.join(parts)} in the clone is not plain: {error.strerror}", kind="unsafe") from None
    finally:
        os.close(directory)
    with os.fdopen(file, "rb") as stream:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise GitError(f"{'/'.join(parts)} in the clone is not a file", kind="unsafe")
        data = stream.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise GitError(f"{'/'.join(parts)} in the clone is too large", kind="unsafe")
    return data
