"""Small servers that speak Plane's, Gitea's and Telegram's recorded contracts. They import nothing of ours."""
