"""What an agent is told: one strict template for each role.

Nothing from outside is written into a prompt but the task's key and the paths of files; all else is in those files.
"""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateError
from jinja2.meta import find_referenced_templates, find_undeclared_variables

from activities.runners.base import Job
from workflows.model import Role
from workflows.verdicts import VerdictOutcome

FOLDER = Path(__file__).with_name("prompts")
MEANINGS = {
    "item.md": "the item as its author wrote it",
    "feedback.md": "what was wrong with the last round: review findings, refused gates, the end of a failing log",
    "tests.txt": "the end of what the project's tests said on exactly this commit",
}
"""What each file of a job is. Only the names known here are told to an agent."""
KNOWN = frozenset({
    "key", "round", "branch", "base_sha", "inputs", "files", "meanings", "earlier", "artifact_path", "headings",
    "verdict_file", "nonce", "outcomes",
})  # fmt: skip
_EARLIER = ("spec.md", "design.md")


class PromptError(Exception):
    """A template is missing, broken, or uses a variable that does not exist."""


class Prompts:
    """The templates of a folder, checked when they are loaded."""

    def __init__(self, folder: Path = FOLDER) -> None:
        """Load and check every template.

        Raises:
            PromptError: with the template and what is wrong with it.
        """
        self._environment = Environment(
            loader=FileSystemLoader(folder),
            undefined=StrictUndefined,
            autoescape=False,  # noqa: S701 - Markdown for a model; nothing from outside is filled in
            keep_trailing_newline=True,
        )
        wanted = {f"{name}.md" for name in (*Role, "resume", "correct")}
        for name in sorted(wanted | {path.name for path in folder.glob("*.md")}):
            self._check(folder / name)

    def _check(self, path: Path) -> None:
        try:
            parsed = self._environment.parse(path.read_text(encoding="utf-8"))
            for included in find_referenced_templates(parsed):
                self._environment.get_template(included or "")
        except (OSError, TemplateError) as error:
            raise PromptError(f"{path}: cannot be used as a prompt: {error}") from error
        unknown = find_undeclared_variables(parsed) - KNOWN
        if unknown:
            known = ", ".join(sorted(KNOWN))
            raise PromptError(f"{path}: unknown variable {', '.join(sorted(unknown))}; there are: {known}")

    def render(self, job: Job, *, by_file: bool) -> str:
        """The prompt for a job; `by_file` asks for the verdict in a file instead of a structured answer."""
        name = job.role.value if job.turn == "start" else job.turn
        return self._environment.get_template(f"{name}.md").render(
            key=job.key,
            round=job.round,
            branch=job.branch,
            base_sha=job.base_sha,
            inputs=str(job.inputs),
            files=[name for name in job.files if name in MEANINGS],
            meanings=MEANINGS,
            earlier=_earlier(job),
            artifact_path=job.artifact_path,
            headings=", ".join(job.headings),
            verdict_file=str(job.verdict_file) if by_file else "",
            nonce=job.nonce,
            outcomes=", ".join(VerdictOutcome),
        )


def _earlier(job: Job) -> list[str]:
    """What earlier stages left, by path; not what this one writes."""
    paths = [f"docs/tasks/{job.key}/{name}" for name in _EARLIER]
    return [path for path in paths if path != job.artifact_path and (job.workspace / path).is_file()]
