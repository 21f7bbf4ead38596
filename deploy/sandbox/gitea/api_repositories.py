"""REST: the user, repositories, branches, branch protection, and webhooks."""

import time
from typing import Any

from aiohttp import web

from deploy.sandbox.gitea import protection
from deploy.sandbox.gitea.access import USER, Access, cut
from deploy.sandbox.gitea.git import ZERO, GitError
from deploy.sandbox.gitea.records import Hook, Protection, Repository
from deploy.sandbox.gitea.service import HEADS
from deploy.sandbox.gitea.webhooks import subscribed
from deploy.sandbox.web import Json


class RepositoriesApi(Access):
    """Handlers; the rules are in `GiteaService`."""

    def add_routes(self, app: web.Application) -> None:
        """Register every route."""
        repo = "/api/v1/repos/{owner}/{name}"
        add = app.router.add_route
        add("GET", "/api/v1/user", self.user)
        add("GET", "/api/v1/version", self.version)
        add("GET", repo, self.get_repository)
        add("PATCH", repo, self.edit_repository)
        add("GET", f"{repo}/branches", self.branches)
        add("POST", f"{repo}/branches", self.create_branch)
        add("GET", f"{repo}/branches/{{branch:.+}}", self.branch)
        add("DELETE", f"{repo}/branches/{{branch:.+}}", self.delete_branch)
        add("GET", f"{repo}/branch_protections", self.protections)
        add("POST", f"{repo}/branch_protections", self.create_protection)
        add("GET", f"{repo}/branch_protections/{{rule:.+}}", self.protection)
        add("PATCH", f"{repo}/branch_protections/{{rule:.+}}", self.edit_protection)
        add("DELETE", f"{repo}/branch_protections/{{rule:.+}}", self.delete_protection)
        add("GET", f"{repo}/hooks", self.hooks)
        add("POST", f"{repo}/hooks", self.create_hook)
        add("GET", f"{repo}/hooks/{{hook}}", self.hook)
        add("PATCH", f"{repo}/hooks/{{hook}}", self.edit_hook)
        add("DELETE", f"{repo}/hooks/{{hook}}", self.delete_hook)

    async def user(self, request: web.Request) -> web.Response:
        """The token's user."""
        return web.json_response(self.shapes.user(request[USER]))

    async def version(self, _request: web.Request) -> web.Response:
        """The version whose contract is spoken."""
        return web.json_response({"version": "1.27.0"})

    async def get_repository(self, request: web.Request) -> web.Response:
        """One repository, with the caller's rights."""
        repository = self.repository(request)
        return web.json_response(self._shown(request, repository))

    async def edit_repository(self, request: web.Request) -> web.Response:
        """Change the description and the allowed merge styles."""
        repository, body = self.repository(request, "admin"), await self.body(request)
        for key in ("description", "allow_merge_commits", "allow_rebase", "allow_squash_merge",
                    "allow_fast_forward_only_merge"):  # fmt: skip
            if key in body:
                setattr(repository, key, body[key])
        self.tables.repositories.put(repository)
        return web.json_response(self._shown(request, repository))

    async def branches(self, request: web.Request) -> web.Response:
        """Every branch."""
        repository = self.repository(request)
        names, headers = cut(request, sorted(await self.service.git(repository).branches()))
        return web.json_response([await self._branch(request, repository, name) for name in names], headers=headers)

    async def branch(self, request: web.Request) -> web.Response:
        """One branch."""
        repository, name = self.repository(request), request.match_info["branch"]
        if name not in await self.service.git(repository).branches():
            raise self.service.refuse(404, "not found")
        return web.json_response(await self._branch(request, repository, name))

    async def create_branch(self, request: web.Request) -> web.Response:
        """A new branch from a branch, tag or commit."""
        repository, body = self.repository(request, "write"), await self.body(request)
        name = str(body.get("new_branch_name", ""))
        source = await self.service.commit(repository, str(body.get("old_ref_name") or repository.default_branch))
        async with self.service.changing_refs(repository, request[USER].id) as git:
            if name in await git.branches():
                raise self.service.refuse(409, "The branch already exists.")
            try:
                await git.run("check-ref-format", HEADS + name)
                await git.update_ref(HEADS + name, source.sha, ZERO)
            except GitError as error:
                raise self.service.refuse(422, str(error)) from error
        return web.json_response(await self._branch(request, repository, name), status=201)

    async def delete_branch(self, request: web.Request) -> web.Response:
        """Delete a branch; the default and protected ones stay."""
        repository, name = self.repository(request, "write"), request.match_info["branch"]
        async with self.service.changing_refs(repository, request[USER].id) as git:
            if name not in await git.branches():
                raise self.service.refuse(404, "not found")
            if name == repository.default_branch:
                raise self.service.refuse(403, "can not delete default or pull request target branch")
            if protection.rule_for(self.tables, repository.id, name):
                raise self.service.refuse(403, "branch protected")
            await git.delete_ref(HEADS + name)
        return web.Response(status=204)

    async def protections(self, request: web.Request) -> web.Response:
        """Every rule."""
        rules = self.tables.protections.of(self.repository(request, "admin").id)
        return web.json_response([self.shapes.protection(rule) for rule in rules])

    async def protection(self, request: web.Request) -> web.Response:
        """One rule."""
        return web.json_response(self.shapes.protection(self._rule(request)))

    async def create_protection(self, request: web.Request) -> web.Response:
        """A new rule."""
        repository, body = self.repository(request, "admin"), await self.body(request)
        name = str(body.get("rule_name") or body.get("branch_name") or "")
        rule_id = f"{repository.id}:{name}"
        if self.tables.protections.get(rule_id):
            raise self.service.refuse(403, "Branch protection already exist")
        now = time.time()
        rule = Protection(
            id=rule_id,
            repository=repository.id,
            rule_name=name,
            created_at=now,
            updated_at=now,
            settings={**protection.DEFAULTS, **_settings(body)},
        )
        return web.json_response(self.shapes.protection(self.tables.protections.put(rule)), status=201)

    async def edit_protection(self, request: web.Request) -> web.Response:
        """Change a rule."""
        rule = self._rule(request)
        rule.settings |= _settings(await self.body(request))
        rule.updated_at = time.time()
        return web.json_response(self.shapes.protection(self.tables.protections.put(rule)))

    async def delete_protection(self, request: web.Request) -> web.Response:
        """Delete a rule."""
        self.tables.protections.delete(self._rule(request))
        return web.Response(status=204)

    async def hooks(self, request: web.Request) -> web.Response:
        """Every webhook of the repository."""
        rows, headers = cut(request, self.tables.hooks.of(self.repository(request, "admin").id))
        return web.json_response([self.shapes.hook(row) for row in rows], headers=headers)

    async def hook(self, request: web.Request) -> web.Response:
        """One webhook."""
        return web.json_response(self.shapes.hook(self._hook(request)))

    async def create_hook(self, request: web.Request) -> web.Response:
        """A new webhook; `active` defaults to false, as in Gitea."""
        repository, body = self.repository(request, "admin"), await self.body(request)
        config: dict[str, Any] = body.get("config") or {}
        if not config.get("url") or config.get("content_type") not in {"json", "form"}:
            raise self.service.refuse(422, "Missing config option: url or content_type")
        number, now = self.service.store.next("gitea.hook"), time.time()
        hook = Hook(
            id=str(number), number=number, repository=repository.id, name=body.get("name") or "",
            url=config["url"],
            secret=config.get("secret") or "", content_type=config["content_type"],
            events=subscribed(body.get("events") or []), branch_filter=body.get("branch_filter") or "",
            authorization_header=body.get("authorization_header") or "",
            active=bool(body.get("active", False)),
            created_at=now, updated_at=now,
        )  # fmt: skip
        return web.json_response(self.shapes.hook(self.tables.hooks.put(hook)), status=201)

    async def edit_hook(self, request: web.Request) -> web.Response:
        """Change a webhook; `config` is merged."""
        hook, body = self._hook(request), await self.body(request)
        config: dict[str, Any] = body.get("config") or {}
        for key in ("url", "secret", "content_type"):
            if key in config:
                setattr(hook, key, config[key])
        for key in ("active", "branch_filter", "authorization_header"):
            if key in body:
                setattr(hook, key, body[key])
        if "events" in body:
            hook.events = subscribed(body["events"])
        hook.updated_at = time.time()
        return web.json_response(self.shapes.hook(self.tables.hooks.put(hook)))

    async def delete_hook(self, request: web.Request) -> web.Response:
        """Delete a webhook."""
        self.tables.hooks.delete(self._hook(request))
        return web.Response(status=204)

    def _shown(self, request: web.Request, repository: Repository) -> Json:
        return self.shapes.repository(repository, self.service.level(repository, request[USER]))

    async def _branch(self, request: web.Request, repository: Repository, name: str) -> Json:
        commit = await self.service.commit(repository, f"{HEADS}{name}")
        rule = protection.rule_for(self.tables, repository.id, name)
        pushes = protection.may_push(rule, request[USER])
        return self.shapes.branch(repository, name, commit, rule, pushes)

    def _rule(self, request: web.Request) -> Protection:
        repository = self.repository(request, "admin")
        rule = self.tables.protections.get(f"{repository.id}:{request.match_info['rule']}")
        if rule is None:
            raise self.service.refuse(404, "not found")
        return rule

    def _hook(self, request: web.Request) -> Hook:
        repository = self.repository(request, "admin")
        hook = self.tables.hooks.get(request.match_info["hook"])
        if hook is None or hook.repository != repository.id:
            raise self.service.refuse(404, "not found")
        return hook


def _settings(body: Json) -> Json:
    return {key: value for key, value in body.items() if key in protection.DEFAULTS}
