"""Text for Plane: Markdown in, a small clean subset of HTML out.

Plane cleans comments with its own defaults, which keep remote images (research: tracking, exfiltration);
our allow-list is stricter. Mentions are broken up, so that an agent's text never calls anybody.
"""

import re

import nh3
from markdown_it import MarkdownIt

_TAGS = {"p", "strong", "em", "code", "pre", "ul", "ol", "li", "a", "h3", "h4", "blockquote", "br",
         "table", "thead", "tbody", "tr", "th", "td"}  # fmt: skip
_MENTION = re.compile(r"(?<![\w`])@(?=\w)")
_REFERENCE = re.compile(r"#(?=\d)")
_IMAGE = re.compile(r"!(?=\[)")
_UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]+")
_BREAK = "\u200b"
_LIMIT = 20_000


def to_html(markdown: str) -> str:
    """Render untrusted Markdown; raw HTML in it is shown as text, an image becomes a link at most."""
    calm = _MENTION.sub(f"@{_BREAK}", markdown[:_LIMIT])
    parser = MarkdownIt("commonmark", {"html": False, "linkify": False}).enable("table").disable("image")
    rendered = parser.render(calm)
    return nh3.clean(
        rendered,
        tags=_TAGS,
        attributes={"a": {"href"}},
        url_schemes={"http", "https"},
        link_rel="noopener noreferrer nofollow",
    )


def for_gitea(markdown: str) -> str:
    """Untrusted Markdown for a pull request: it calls nobody, closes no issue, and loads no image.

    Gitea sanitizes the HTML itself, but acts on `@name` and on `closes #1`.
    """
    calm = _MENTION.sub(f"@{_BREAK}", markdown[:_LIMIT])
    return _IMAGE.sub(f"!{_BREAK}", _REFERENCE.sub(f"#{_BREAK}", calm))


def title(text: str, limit: int = 250) -> str:
    """One bounded line of untrusted text for a pull request's title."""
    flat = " ".join(_UNSEEN.sub(" ", text).split())
    return _REFERENCE.sub("# ", _MENTION.sub("@ ", flat))[:limit]


def inline(text: str, limit: int = 300) -> str:
    """One line of untrusted text, safe inside Markdown of ours."""
    flat = " ".join(text.split())[:limit]
    return re.sub(r"([\\`*_\[\]<>#|])", r"\\\1", flat)
