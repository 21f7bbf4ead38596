"""Small servers that speak Plane's, Gitea's and Telegram's contracts. They import nothing of ours."""

from deploy.sandbox.config import SandboxConfig
from deploy.sandbox.runtime import Sandbox

__all__ = ["Sandbox", "SandboxConfig"]
