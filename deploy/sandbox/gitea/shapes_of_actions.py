"""Runs and jobs of the small Actions, as Gitea and as Forgejo write them."""

from deploy.sandbox.gitea.records import Pull, Repository, Run, User
from deploy.sandbox.gitea.shapes import EPOCH, NEVER, Shapes, stamp
from deploy.sandbox.web import Json

WORKFLOW = "ci.yml"


def run(shapes: Shapes, row: Run, repository: Repository, title: str, pulls: list[Pull]) -> Json:
    """A CI run in REST and in its webhooks."""
    place = f"/actions/runs/{row.number}"
    small = {"id": repository.number, "url": shapes.api(row.repository), "name": repository.name}
    conclusion = {"conclusion": row.conclusion} if row.conclusion else {}
    return {
        "id": row.number, "url": shapes.api(row.repository, place), "previous_attempt_url": None,
        "html_url": shapes.url(row.repository, place), "display_title": title,
        "path": f"{WORKFLOW}@refs/heads/{row.branch}", "event": "push", "run_attempt": row.attempt,
        "run_number": row.index, "head_sha": row.sha, "head_branch": row.branch, "status": row.status,
        "actor": shapes.person(row.actor), "trigger_actor": shapes.person(row.actor),
        "repository": shapes.repository(repository), **conclusion,
        "pull_requests": [
            {"id": pull.number, "number": pull.index,
             "url": shapes.api(row.repository, f"/pulls/{pull.index}"),
             "head": {"ref": pull.head, "sha": pull.head_sha, "repo": small},
             "base": {"ref": pull.base, "sha": pull.merge_base, "repo": small}}
            for pull in pulls
        ],
        "started_at": stamp(row.started_at or 0), "completed_at": stamp(row.completed_at or 0),
    }  # fmt: skip


def job(shapes: Shapes, row: Run, repository: Repository) -> Json:
    """The one job of a run."""
    place = f"/actions/runs/{row.number}"
    conclusion = {"conclusion": row.conclusion} if row.conclusion else {}
    return {
        "id": row.job_number, "url": shapes.api(repository.id, f"/actions/jobs/{row.job_number}"),
        "html_url": shapes.url(repository.id, f"{place}/jobs/{row.job_number}"),
        "run_id": row.number,
        "run_url": shapes.api(repository.id, place), "name": "test", "labels": ["sandbox"],
        "run_attempt": row.attempt, "head_sha": row.sha, "head_branch": row.branch, "status": row.status,
        **conclusion, "runner_id": 1, "runner_name": "sandbox", "steps": [],
        "created_at": stamp(row.created_at), "started_at": stamp(row.started_at or 0),
        "completed_at": stamp(row.completed_at or 0),
    }  # fmt: skip


def workflow(shapes: Shapes, repository: Repository) -> Json:
    """The workflow file a run belongs to; the sandbox's CI has none, so its dates are the repository's."""
    path, at = f".gitea/workflows/{WORKFLOW}", stamp(repository.created_at)
    page = shapes.url(repository.id, f"/actions/workflows/{WORKFLOW}/badge.svg?branch={repository.default_branch}")
    return {
        "id": WORKFLOW, "name": "CI", "path": path, "state": "active", "created_at": at, "updated_at": at,
        "url": shapes.api(repository.id, f"/actions/workflows/{WORKFLOW}"),
        "html_url": shapes.url(repository.id, f"/src/branch/{repository.default_branch}/{path}"),
        "badge_url": page, "deleted_at": NEVER,
    }  # fmt: skip


def organization(shapes: Shapes, row: User) -> Json:
    """The organization that owns a repository."""
    return {
        "id": row.number, "name": row.id, "full_name": row.full_name, "email": row.email,
        "avatar_url": f"{shapes.root}/avatars/{row.id}", "description": "", "website": "", "location": "",
        "visibility": "private", "repo_admin_change_team_access": False, "username": row.id,
    }  # fmt: skip


def forgejo_run(shapes: Shapes, row: Run, title: str) -> Json:
    """A CI run of Forgejo, with the fields its contract names: `status` says how it ended, nothing else does."""
    status = {"queued": "waiting", "in_progress": "running"}.get(row.status) or row.conclusion or "unknown"
    return {
        "id": row.number, "index_in_repo": row.index, "title": title, "workflow_id": WORKFLOW, "event": "push",
        "commit_sha": row.sha, "prettyref": row.branch, "status": status,
        "html_url": shapes.url(row.repository, f"/actions/runs/{row.number}"),
        "created": stamp(row.created_at), "started": stamp(row.started_at) if row.started_at else EPOCH,
        "stopped": stamp(row.completed_at) if row.completed_at else EPOCH,
    }  # fmt: skip
