"""Servers that speak the recorded contracts of Plane, Gitea and Telegram; they import nothing of ours."""
