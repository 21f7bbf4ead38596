"""Branch protection: who may push, and what a merge needs (gitea.md section 3)."""

from collections.abc import Iterable
from fnmatch import fnmatchcase

from deploy.sandbox.gitea.records import Protection, Pull, Review, Status, Tables, User
from deploy.sandbox.web import Json

# Every setting with its default, in the order and shape of payloads/gitea/rest_branch_protection_create.json.
DEFAULTS: Json = {
    "enable_push": False, "enable_push_whitelist": False, "push_whitelist_usernames": [],
    "push_whitelist_teams": [],
    "push_whitelist_deploy_keys": False, "enable_force_push": False, "enable_force_push_allowlist": False,
    "force_push_allowlist_usernames": [], "force_push_allowlist_teams": [],
    "force_push_allowlist_deploy_keys": False, "enable_merge_whitelist": False,
    "merge_whitelist_usernames": [],
    "merge_whitelist_teams": [], "enable_bypass_allowlist": False, "bypass_allowlist_usernames": [],
    "bypass_allowlist_teams": [], "enable_status_check": False, "status_check_contexts": [],
    "required_approvals": 0,
    "enable_approvals_whitelist": False, "approvals_whitelist_username": [], "approvals_whitelist_teams": [],
    "block_on_rejected_reviews": False, "block_on_official_review_requests": False,
    "block_on_outdated_branch": False, "dismiss_stale_approvals": False, "ignore_stale_approvals": False,
    "require_signed_commits": False, "protected_file_patterns": "", "unprotected_file_patterns": "",
    "block_admin_merge_override": False,
}  # fmt: skip

GOOD = {"success", "skipped"}


def rule_for(tables: Tables, repository: str, branch: str) -> Protection | None:
    """The rule of a branch: its own name first, then the first glob that matches."""
    rules = tables.protections.of(repository)
    own = (rule for rule in rules if rule.rule_name == branch)
    return next(own, None) or next((rule for rule in rules if fnmatchcase(branch, rule.rule_name)), None)


def may_push(rule: Protection | None, user: User) -> bool:
    """Whether a user may push to a branch under this rule."""
    if rule is None:
        return True
    settings = rule.settings
    if not settings["enable_push"]:
        return False
    names = settings["push_whitelist_usernames"]
    return not settings["enable_push_whitelist"] or (isinstance(names, list) and user.id in names)


def closed_patterns(tables: Tables, repository: str, user: User) -> list[str]:
    """The branch patterns this user may not push to."""
    return [rule.rule_name for rule in tables.protections.of(repository) if not may_push(rule, user)]


def latest(statuses: Iterable[Status]) -> list[Status]:
    """The newest status of each context, in the order of their first appearance."""
    newest: dict[str, Status] = {}
    for status in statuses:
        newest[status.context] = status
    return list(newest.values())


def combined(statuses: list[Status]) -> str:
    """One word for many: nothing is pending, a warning is a failure, skipped is a success."""
    states = {status.state for status in statuses}
    if states & {"error"}:
        return "error"
    if states & {"failure", "warning"}:
        return "failure"
    if not states or "pending" in states:
        return "pending"
    return "success"


def checks_pass(rule: Protection, statuses: list[Status]) -> bool:
    """Whether the required contexts succeeded; one that never reported blocks."""
    patterns = rule.settings["status_check_contexts"]
    if not isinstance(patterns, list) or not patterns:
        return bool(statuses) and combined(statuses) == "success"
    for pattern in patterns:
        matching = [status for status in statuses if fnmatchcase(status.context, pattern)]
        if not matching or any(status.state not in GOOD for status in matching):
            return False
    return True


def objections(rule: Protection, pull: Pull, reviews: list[Review], statuses: list[Status], *, behind: bool) -> str:
    """Why the rule forbids the merge, in Gitea's words; empty if it does not."""
    settings = rule.settings
    verdicts: dict[str, Review] = {}
    for review in reviews:
        if review.state in {"APPROVED", "REQUEST_CHANGES"} and review.official and not review.dismissed:
            verdicts[review.user] = review
    stale_counts = not settings["ignore_stale_approvals"]
    approvals = [row for row in verdicts.values()
                 if row.state == "APPROVED" and (stale_counts or row.commit_id == pull.head_sha)]  # fmt: skip
    required = settings["required_approvals"]
    causes = {
        "Not all required status checks successful": settings["enable_status_check"]
        and not checks_pass(rule, statuses),
        "Does not have enough approvals": isinstance(required, int) and len(approvals) < required,
        "There are requested changes": settings["block_on_rejected_reviews"]
        and any(row.state == "REQUEST_CHANGES" for row in verdicts.values()),
        "The head branch is behind the base branch": settings["block_on_outdated_branch"] and behind,
    }
    return next((text for text, blocks in causes.items() if blocks), "")
