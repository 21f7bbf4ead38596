"""Records as Gitea writes them: key for key what stands in payloads/gitea (source of v1.27.0).

Links a person opens start with the public address, as do API links: Gitea builds all of them from ROOT_URL.
"""

from dataclasses import dataclass
from datetime import UTC, datetime

from deploy.sandbox.gitea.git import Commit, Person
from deploy.sandbox.gitea.records import (
    ACTIONS_USER,
    Comment,
    Hook,
    Protection,
    Pull,
    Repository,
    Review,
    Status,
    Tables,
    User,
)
from deploy.sandbox.web import Json

NEVER = "0001-01-01T00:00:00Z"
EPOCH = "1970-01-01T00:00:00Z"


def stamp(moment: float | datetime) -> str:
    """UTC, whole seconds, Z."""
    at = moment if isinstance(moment, datetime) else datetime.fromtimestamp(moment, UTC)
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass
class PullView:
    """What a pull request shows beyond its record: facts read from git just now."""

    head_sha: str
    base_sha: str
    merge_base: str | None
    mergeable: bool
    additions: int
    deletions: int
    changed_files: int


class Shapes:
    """Every JSON form; knows the public address and who is who."""

    def __init__(self, tables: Tables, public_url: str) -> None:
        self._tables = tables
        self.root = public_url

    def url(self, repository: str, rest: str = "") -> str:
        """A page of a repository."""
        return f"{self.root}/{repository}{rest}"

    def api(self, repository: str, rest: str = "") -> str:
        """An API link of a repository."""
        return f"{self.root}/api/v1/repos/{repository}{rest}"

    def person(self, login: str | None) -> Json | None:
        """A user by login."""
        if login is None:
            return None
        return self.user(ACTIONS_USER if login == ACTIONS_USER.id else self._tables.users.get(login) or _ghost(login))

    def user(self, row: User) -> Json:
        """A user."""
        return {
            "id": row.number, "login": row.id, "login_name": "", "source_id": 0, "full_name": row.full_name,
            "email": row.email or f"{row.id}@noreply.example.com",
            "avatar_url": f"{self.root}/avatars/{row.id}",
            "html_url": f"{self.root}/{row.id}", "language": "", "is_admin": row.is_admin,
            "last_login": NEVER,
            "created": stamp(row.created_at), "restricted": False, "active": False, "prohibit_login": False,
            "location": "", "website": "", "description": "", "visibility": "public", "followers_count": 0,
            "following_count": 0, "starred_repos_count": 0, "username": row.id,
        }  # fmt: skip

    def repository(self, row: Repository, level: str = "") -> Json:
        """A repository; `level` is what the viewer may do."""
        open_pulls = sum(pull.state == "open" for pull in self._tables.pulls.of(row.id))
        rights = {"admin": level == "admin", "push": level in {"admin", "write"}, "pull": True}
        return {
            "id": row.number, "owner": self.person(row.owner), "name": row.name, "full_name": row.id,
            "description": row.description, "empty": False, "private": row.private, "fork": False,
            "template": False,
            "mirror": False, "size": 0, "language": "", "languages_url": self.api(row.id, "/languages"),
            "html_url": self.url(row.id), "url": self.api(row.id), "link": "",
            "ssh_url": f"git@localhost:{row.id}.git", "clone_url": self.url(row.id, ".git"),
            "original_url": "",
            "website": "", "stars_count": 0, "forks_count": 0, "watchers_count": 0, "branch_count": 0,
            "open_issues_count": 0, "open_pr_counter": open_pulls, "release_counter": 0,
            "default_branch": row.default_branch, "archived": False, "created_at": stamp(row.created_at),
            "updated_at": stamp(row.updated_at), "archived_at": EPOCH, "permissions": rights,
            "has_code": True,
            "has_issues": True,
            "internal_tracker": {"enable_time_tracker": True, "allow_only_contributors_to_track_time": True,
                                 "enable_issue_dependencies": True},
            "has_wiki": False, "has_pull_requests": True, "has_projects": False, "projects_mode": "all",
            "has_releases": True, "has_packages": True, "has_actions": row.ci_command is not None,
            "ignore_whitespace_conflicts": False, "allow_merge_commits": row.allow_merge_commits,
            "allow_rebase": row.allow_rebase, "allow_rebase_explicit": row.allow_rebase,
            "allow_squash_merge": row.allow_squash_merge,
            "allow_fast_forward_only_merge": row.allow_fast_forward_only_merge, "allow_merge_update": True,
            "allow_rebase_update": True, "allow_manual_merge": False, "autodetect_manual_merge": False,
            "default_delete_branch_after_merge": False, "default_merge_style": "merge",
            "default_update_style": "merge", "default_allow_maintainer_edit": False, "avatar_url": "",
            "internal": False, "mirror_interval": "", "object_format_name": "sha1", "mirror_updated": NEVER,
            "mirror_last_sync_at": NEVER, "topics": [], "licenses": [],
        }  # fmt: skip

    def signature(self, person: Person) -> Json:
        """An author or committer in a short commit."""
        user = self._by_email(person.email)
        return {"name": person.name, "email": person.email, "username": user.id if user else ""}

    def payload_commit(self, repository: str, commit: Commit, *, files: bool) -> Json:
        """The short form of webhooks (with files) and of branches (without)."""
        return {
            "id": commit.sha, "message": commit.message, "url": self.url(repository, f"/commit/{commit.sha}"),
            "author": self.signature(commit.author), "committer": self.signature(commit.committer),
            "verification": None, "timestamp": stamp(commit.committer.at),
            "added": commit.added if files else None, "removed": commit.removed if files else None,
            "modified": commit.modified if files else None,
        }  # fmt: skip

    def commit(self, repository: str, row: Commit) -> Json:
        """The long form of commit lists."""

        def link(sha: str, kind: str, created: str) -> Json:
            return {"url": self.api(repository, f"/git/{kind}/{sha}"), "sha": sha, "created": created}

        def signed(person: Person) -> Json:
            return {"name": person.name, "email": person.email, "date": stamp(person.at)}

        def account(person: Person) -> Json | None:
            user = self._by_email(person.email)
            return self.user(user) if user else None

        at = stamp(row.committer.at)
        changed = {"added": row.added, "modified": row.modified, "removed": row.removed}
        inner = {
            "url": self.api(repository, f"/git/commits/{row.sha}"), "author": signed(row.author),
            "committer": signed(row.committer), "message": row.message, "tree": link(row.tree, "trees", at),
            "verification": None,
        }  # fmt: skip
        return {
            **link(row.sha, "commits", at), "html_url": self.url(repository, f"/commit/{row.sha}"),
            "commit": inner,
            "author": account(row.author), "committer": account(row.committer),
            "parents": [link(parent, "commits", NEVER) for parent in row.parents],
            "files": [
                {"filename": path, "status": kind} for kind, paths in changed.items() for path in paths
            ],
            "stats": {"total": 0, "additions": 0, "deletions": 0},
        }  # fmt: skip

    def branch(self, repository: Repository, name: str, commit: Commit, rule: Protection | None, pushes: bool) -> Json:
        """A branch, with what protects it."""
        settings = rule.settings if rule else {}
        reason = "gpg.error.not_signed_commit"
        unsigned = {"verified": False, "reason": reason, "signature": "", "signer": None, "payload": ""}
        return {
            "name": name,
            "commit": {**self.payload_commit(repository.id, commit, files=False), "verification": unsigned},
            "protected": rule is not None, "required_approvals": settings.get("required_approvals", 0),
            "enable_status_check": settings.get("enable_status_check", False),
            "status_check_contexts": settings.get("status_check_contexts", []), "user_can_push": pushes,
            "user_can_merge": True, "effective_branch_protection_name": rule.rule_name if rule else "",
        }  # fmt: skip

    def pull(self, row: Pull, repository: Repository, view: PullView, *, listed: bool = False) -> Json:
        """A pull request. `url` is the page, not the API; the list has no line counts."""
        page = self.url(row.repository, f"/pulls/{row.index}")

        def side(name: str, sha: str) -> Json:
            repo = self.repository(repository, "write")
            return {"label": name, "ref": name, "sha": sha, "repo_id": repository.number, "repo": repo}

        counts = {
            "additions": view.additions,
            "deletions": view.deletions,
            "changed_files": view.changed_files,
        }
        return {
            "id": row.number, "url": page, "number": row.index, "user": self.person(row.user),
            "title": row.title,
            "body": row.body, "labels": [], "milestone": None, "assignee": None, "assignees": [],
            "requested_reviewers": [self.person(login) for login in row.requested_reviewers],
            "requested_reviewers_teams": [], "state": row.state, "draft": _is_draft(row.title),
            "is_locked": False,
            "comments": len(self._tables.comments.of(row.id)), **({} if listed else counts), "html_url": page,
            "diff_url": f"{page}.diff", "patch_url": f"{page}.patch", "mergeable": view.mergeable,
            "merged": row.merged_at is not None, "merged_at": stamp(row.merged_at) if row.merged_at else None,
            "merge_commit_sha": row.merge_commit_sha, "merged_by": self.person(row.merged_by),
            "allow_maintainer_edit": False, "base": side(row.base, view.base_sha),
            "head": side(row.head, view.head_sha), "merge_base": view.merge_base, "due_date": None,
            "created_at": stamp(row.created_at), "updated_at": stamp(row.updated_at),
            "closed_at": stamp(row.closed_at) if row.closed_at else None, "pin_order": 0,
            "content_version": 0,
        }  # fmt: skip

    def issue(self, row: Pull, repository: Repository) -> Json:
        """A pull request seen as an issue, in comment webhooks."""
        page = self.url(row.repository, f"/pulls/{row.index}")
        return {
            "id": row.issue_number, "url": self.api(row.repository, f"/issues/{row.index}"), "html_url": page,
            "number": row.index, "user": self.person(row.user), "original_author": "",
            "original_author_id": 0,
            "title": row.title, "body": row.body, "ref": "", "assets": [], "labels": [], "milestone": None,
            "projects": [], "assignee": None, "assignees": [], "state": row.state, "is_locked": False,
            "comments": len(self._tables.comments.of(row.id)), "created_at": stamp(row.created_at),
            "updated_at": stamp(row.updated_at), "closed_at": stamp(row.closed_at) if row.closed_at else None,
            "due_date": None, "time_estimate": 0,
            "pull_request": {"merged": row.merged_at is not None, "draft": _is_draft(row.title),
                             "html_url": page,
                             "merged_at": stamp(row.merged_at) if row.merged_at else None},
            "repository": {"id": repository.number, "name": repository.name, "owner": repository.owner,
                           "full_name": repository.id},
            "pin_order": 0, "content_version": 0,
        }  # fmt: skip

    def comment(self, row: Comment, pull: Pull) -> Json:
        """A comment on a pull request."""
        page = self.url(pull.repository, f"/pulls/{pull.index}")
        return {
            "id": row.number, "html_url": f"{page}#issuecomment-{row.number}", "pull_request_url": page,
            "issue_url": "", "user": self.person(row.user), "original_author": "", "original_author_id": 0,
            "body": row.body, "assets": [], "created_at": stamp(row.created_at),
            "updated_at": stamp(row.updated_at),
        }  # fmt: skip

    def review(self, row: Review, pull: Pull) -> Json:
        """A review; stale once the head moved."""
        page = self.url(pull.repository, f"/pulls/{pull.index}")
        return {
            "id": row.number, "user": self.person(row.user), "team": None, "state": row.state,
            "body": row.body,
            "commit_id": row.commit_id, "stale": row.commit_id != pull.head_sha, "official": row.official,
            "dismissed": row.dismissed, "comments_count": len(row.comments),
            "submitted_at": stamp(row.submitted_at), "updated_at": stamp(row.submitted_at),
            "html_url": f"{page}#issuecomment-{row.number}", "pull_request_url": page,
        }  # fmt: skip

    def status(self, row: Status) -> Json:
        """A commit status in REST: the key is `status` and the id counts within the commit."""
        at = stamp(row.created_at)
        return {
            "id": row.index, "status": row.state, "target_url": row.target_url,
            "description": row.description,
            "url": self.api(row.repository, f"/statuses/{row.sha}"), "context": row.context,
            "creator": self.person(row.creator), "created_at": at, "updated_at": at,
        }  # fmt: skip

    def hook(self, row: Hook) -> Json:
        """A webhook; the secret is never told."""
        return {
            "id": row.number, "name": row.name, "type": "gitea", "branch_filter": row.branch_filter,
            "config": {"content_type": row.content_type, "url": row.url}, "events": row.events,
            "authorization_header": row.authorization_header, "active": row.active,
            "updated_at": stamp(row.updated_at), "created_at": stamp(row.created_at),
        }  # fmt: skip

    def protection(self, row: Protection) -> Json:
        """A branch protection rule."""
        times = {"created_at": stamp(row.created_at), "updated_at": stamp(row.updated_at)}
        return {
            "branch_name": row.rule_name,
            "rule_name": row.rule_name,
            "priority": 1,
            **row.settings,
            **times,
        }

    def _by_email(self, email: str) -> User | None:
        return self._tables.users.find(lambda row: row.email == email and not row.is_org)


def _is_draft(title: str) -> bool:
    return title.upper().startswith(("WIP:", "[WIP]"))


def _ghost(login: str) -> User:
    return User(id=login, number=-1)
