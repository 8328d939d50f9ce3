"""A Hugging Face Hub inside the test process, on the loopback interface, for the real huggingface_hub client.

    with LocalHub() as hub:
        hub.serve("model", "acme/tiny", folder)  # a folder as a public repository
        hub.faults.append(Fault(503, every=3))  # every third request fails
        subprocess.run([...], env=os.environ | hub.environ(tmp_path))
        assert len(hub.repos["model", "tester/adapter"].commits) == 2

It keeps everything in memory and knows what a push and a pull need: no pull requests, no pagination, no xet.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

USER, ORGANIZATION = "tester", "tester-lab"
WRITE_TOKEN, READ_TOKEN = "hf_" + "w" * 34, "hf_" + "r" * 34
ROLES = {WRITE_TOKEN: "write", READ_TOKEN: "read"}
LARGE = (
    ".safetensors",
    ".gguf",
    ".onnx",
    ".parquet",
    ".bin",
    ".model",
    ".png",
)  # what the Hub sends to large-file storage

API = r"/api/(?P<kind>model|dataset)s/(?P<repo_id>[^/]+/[^/]+)"
REVISION = r"(?P<revision>refs/[^/]+/[^/]+|[^/]+)"
GIT = r"/(?:(?P<kind>dataset)s/)?(?P<repo_id>[^/]+/[^/]+)"
ROUTES: list[tuple[str, str, Callable[..., None]]] = []  # verb, pattern of the path, method of Handler


class Blob:
    """The content of a file, in memory or on disk; a large one is in git as a pointer."""

    def __init__(self, source: bytes | Path, *, large: bool) -> None:
        self.source, self.large = source, large

    @property
    def data(self) -> bytes:
        return self.source if isinstance(self.source, bytes) else self.source.read_bytes()

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @cached_property
    def blob_id(self) -> str:
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(self.data)}\n"
        stored = pointer.encode() if self.large else self.data
        return hashlib.sha1(b"blob %d\0" % len(stored) + stored).hexdigest()

    @property
    def etag(self) -> str:
        return self.sha256 if self.large else self.blob_id

    def describe(self, path: str) -> dict[str, Any]:
        size = len(self.data)
        lfs = {"lfs": {"oid": self.sha256, "size": size, "pointerSize": 134}} if self.large else {}
        return {"type": "file", "path": path, "size": size, "oid": self.blob_id, **lfs}


@dataclass(frozen=True)
class Commit:
    """A state of a repository."""

    sha: str
    title: str
    files: Mapping[str, Blob]


@dataclass
class Repo:
    """A repository with one branch, `main`, and optional other refs. Files of a gated one are refused to everyone."""

    private: bool
    gated: bool = False
    commits: list[Commit] = field(default_factory=list)
    refs: dict[str, Commit] = field(default_factory=dict)  # refs/convert/parquet and the like

    @property
    def head(self) -> Commit:
        return self.commits[-1]

    def add(self, title: str, files: Mapping[str, Blob], ref: str | None = None) -> Commit:
        state = [id(self), len(self.commits), title, sorted((name, blob.etag) for name, blob in files.items()), ref]
        commit = Commit(hashlib.sha1(json.dumps(state).encode()).hexdigest(), title, dict(files))
        if ref is None:
            self.commits.append(commit)
        else:
            self.refs[ref] = commit
        return commit


@dataclass
class Fault:
    """A failure of every `every`-th matching request, at most `times` times (None: without limit).

    `path` is searched for in "METHOD /path". `status` 0 does the work and hangs up without an answer.
    """

    status: int
    every: int = 1
    times: int | None = None
    path: str = ""
    retry_after: int = 0
    seen: int = 0
    done: int = 0

    def strikes(self, line: str) -> bool:
        if self.done == self.times or not re.search(self.path, line):
            return False
        self.seen += 1
        self.done += self.seen % self.every == 0
        return self.seen % self.every == 0


class Record(NamedTuple):
    """A request, and the status of its answer (0: no answer)."""

    method: str
    path: str
    status: int


class Answer(Exception):
    """A response, raised as an exception to end the handling of a request anywhere."""

    def __init__(self, body: object, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status)
        self.body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.status, self.headers = status, {"Content-Length": str(len(self.body)), **(headers or {})}


class Refusal(Answer):
    """An error in the form that the client understands."""

    def __init__(self, status: int, message: str, code: str = "", headers: Mapping[str, str] | None = None) -> None:
        codes = {"X-Error-Code": code} if code else {}
        super().__init__({"error": message}, status, {"X-Error-Message": message, **codes, **(headers or {})})


def route(verb: str, pattern: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    def register(method: Callable[..., None]) -> Callable[..., None]:
        ROUTES.append((verb, pattern, method))
        return method

    return register


class Handler(BaseHTTPRequestHandler):
    """One connection. A route raises its `Answer`."""

    protocol_version = "HTTP/1.1"
    server: LocalHub

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: `LocalHub.requests` has every request."""

    def handle_request(self) -> None:
        url = urlsplit(self.path)
        self.query, path = parse_qs(url.query), unquote(url.path)
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        with self.server.lock:
            faults = [fault for fault in self.server.faults if fault.strikes(f"{self.command} {path}")]
            answer = self.work_out(path, faults)
            lost = any(fault.status == 0 for fault in faults)
            self.server.requests.append(Record(self.command, path, 0 if lost else answer.status))
        if lost:
            self.close_connection = True
            return
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    do_GET = do_HEAD = do_POST = do_PUT = handle_request

    def work_out(self, path: str, faults: list[Fault]) -> Answer:
        for fault in faults:
            if fault.status:
                return Refusal(fault.status, "Injected fault", headers={"Retry-After": str(fault.retry_after)})
        authorization = self.headers.get("Authorization", "")
        self.role = ROLES.get(authorization.removeprefix("Bearer "))
        if authorization and self.role is None:
            return Refusal(401, "Invalid credentials in Authorization header")
        try:
            for verb, pattern, method in ROUTES:
                if verb == self.command.replace("HEAD", "GET") and (match := re.fullmatch(pattern, path)):
                    method(self, **match.groupdict())
        except Answer as answer:
            return answer
        return Refusal(404, f"Not found: {path}")

    def find(self, kind: str | None, repo_id: str) -> Repo:
        """The repository, if the caller may read it; others do not learn whether it exists."""
        repo = self.server.repos.get((kind or "model", repo_id))
        if repo is None or (repo.private and self.role is None):
            raise Refusal(404 if self.role else 401, "Repository not found", "RepoNotFound")
        return repo

    def find_commit(self, kind: str | None, repo_id: str, revision: str | None) -> Commit:
        repo = self.find(kind, repo_id)
        for commit in reversed(repo.commits):
            if revision in (None, "main", commit.sha):
                return commit
        for ref, commit in repo.refs.items():
            if revision in (ref, commit.sha):
                return commit
        raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")

    def find_writable(self, kind: str | None, repo_id: str) -> Repo:
        self.require_write_access(repo_id.split("/")[0])
        return self.find(kind, repo_id)

    def require_write_access(self, namespace: str) -> None:
        if self.role is None:
            raise Refusal(401, "Invalid username or password.")
        if self.role != "write" or namespace not in (USER, ORGANIZATION):
            raise Refusal(403, "Forbidden: you don't have the rights to write here")

    @route("GET", "/api/whoami-v2")
    def whoami(self) -> None:
        if self.role is None:
            raise Refusal(401, "Invalid username or password.")
        token = {"displayName": "test", "role": self.role}
        raise Answer({"type": "user", "name": USER, "orgs": [{"name": ORGANIZATION}], "auth": {"accessToken": token}})

    @route("POST", "/api/repos/create")
    def create(self) -> None:
        fields = json.loads(self.body)
        kind, namespace = fields.get("type") or "model", fields.get("organization") or USER
        self.require_write_access(namespace)
        repo_id = f"{namespace}/{fields['name']}"
        url = {"url": f"{self.server.endpoint}/{'datasets/' if kind == 'dataset' else ''}{repo_id}"}
        if (kind, repo_id) in self.server.repos:
            raise Answer({**url, "error": f"You already created this {kind} repo"}, 409)
        private = fields.get("private", fields.get("visibility") == "private")  # public by default, as on the Hub
        repo = self.server.repos[kind, repo_id] = Repo(bool(private))
        repo.add("initial commit", {".gitattributes": Blob(b"*.safetensors filter=lfs\n", large=False)})
        raise Answer(url)

    @route("POST", "/api/validate-yaml")
    def validate_yaml(self) -> None:
        front = re.match(r"---\n(.*?)\n---\n", json.loads(self.body)["content"], re.DOTALL)
        try:
            yaml.safe_load(front[1] if front else "")
        except yaml.YAMLError as error:
            raise Answer({"errors": [{"message": str(error)}], "warnings": []}, 400) from None
        raise Answer({"errors": [], "warnings": []})

    @route("GET", rf"{API}(?:/revision/{REVISION})?")
    def info(self, kind: str, repo_id: str, revision: str | None) -> None:
        repo, commit = self.find(kind, repo_id), self.find_commit(kind, repo_id, revision)
        gated = "manual" if repo.gated else False
        about: dict[str, Any] = {"private": repo.private, "gated": gated, "disabled": False, "tags": []}
        siblings = [{"rfilename": name} for name in commit.files]
        raise Answer({"id": repo_id, "sha": commit.sha, "siblings": siblings, **about})

    @route("GET", rf"{API}/tree/{REVISION}(?:/(?P<path>.+))?")
    def tree(self, kind: str, repo_id: str, revision: str, path: str | None) -> None:
        files, start = self.find_commit(kind, repo_id, revision).files, f"{path}/" if path else ""
        below = {name.removeprefix(start): name for name in files if name.startswith(start)}
        if path and not below:
            raise Refusal(404, "Entry not found", "EntryNotFound")
        deep = self.query.get("recursive", [""])[0].lower() in ("true", "1")
        folders = sorted({rest.split("/")[0] for rest in below if "/" in rest})
        entries = [{"type": "directory", "path": start + name, "size": 0, "oid": "0" * 40} for name in folders]
        names = [name for rest, name in below.items() if deep or "/" not in rest]
        raise Answer(entries + [files[name].describe(name) for name in names])

    @route("POST", rf"{API}/paths-info/{REVISION}")
    def paths_info(self, kind: str, repo_id: str, revision: str) -> None:
        files = self.find_commit(kind, repo_id, revision).files
        names = parse_qs(self.body.decode())["paths"] if self.body[:1] != b"{" else json.loads(self.body)["paths"]
        raise Answer([files[name].describe(name) for name in names if name in files])

    @route("POST", rf"{API}/preupload/(?P<revision>[^/]+)")
    def preupload(self, kind: str, repo_id: str, revision: str) -> None:
        head, answer = self.find_writable(kind, repo_id).head.files, []
        for name in (file["path"] for file in json.loads(self.body)["files"]):
            known = {"oid": head[name].etag} if name in head else {}
            mode = "lfs" if name.endswith(LARGE) else "regular"
            answer.append({"path": name, "uploadMode": mode, "shouldIgnore": False, **known})
        raise Answer({"files": answer})

    @route("POST", rf"{GIT}\.git/info/lfs/objects/batch")
    def lfs_batch(self, kind: str | None, repo_id: str) -> None:
        self.find_writable(kind, repo_id)
        store, objects = f"{self.server.endpoint}/lfs", json.loads(self.body)["objects"]
        for item in objects:
            if item["oid"] not in self.server.large_files:
                upload, verify = {"href": f"{store}/{item['oid']}"}, {"href": f"{store}/verify"}
                item["actions"] = {"upload": upload, "verify": verify}
        raise Answer({"transfer": "basic", "objects": objects})

    @route("PUT", "/lfs/(?P<oid>[0-9a-f]{64})")
    def lfs_put(self, oid: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise Refusal(400, "The content does not match its checksum")
        self.server.large_files[oid] = self.body
        raise Answer({})

    @route("POST", "/lfs/verify")
    def lfs_verify(self) -> None:
        fields = json.loads(self.body)
        if len(self.server.large_files.get(fields["oid"], b"")) != fields["size"]:
            raise Refusal(404, "The object was not uploaded")
        raise Answer({})

    @route("POST", rf"{API}/commit/(?P<revision>[^/]+)")
    def commit(self, kind: str, repo_id: str, revision: str) -> None:
        repo = self.find_writable(kind, repo_id)
        header, *operations = [json.loads(line) for line in self.body.splitlines()]
        if header["value"].get("parentCommit") not in (None, repo.head.sha):
            raise Refusal(412, "A commit has happened since. Please refresh and try again.")
        files = dict(repo.head.files)
        for operation in operations:
            action, value = operation["key"], operation["value"]
            if action == "file":
                files[value["path"]] = Blob(base64.b64decode(value["content"]), large=False)
            elif action == "lfsFile":
                files[value["path"]] = Blob(self.server.large_files[value["oid"]], large=True)
            else:
                del files[value["path"]]
        sha = repo.add(header["value"]["summary"], files).sha
        raise Answer({"success": True, "commitOid": sha, "commitUrl": f"{self.server.endpoint}/{repo_id}/commit/{sha}"})

    @route("GET", rf"{GIT}/resolve/{REVISION}/(?P<path>.+)")
    def resolve(self, kind: str | None, repo_id: str, revision: str, path: str) -> None:
        commit = self.find_commit(kind, repo_id, revision)
        if self.find(kind, repo_id).gated:
            raise Refusal(403 if self.role else 401, "Access to this repository is restricted", "GatedRepo")
        headers = {"X-Repo-Commit": commit.sha}
        if path not in commit.files:
            raise Refusal(404, "Entry not found", "EntryNotFound", headers)
        blob = commit.files[path]
        headers |= {"ETag": f'"{blob.etag}"', "Accept-Ranges": "bytes"}
        if span := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            part = blob.data[int(span[1]) : int(span[2]) + 1 if span[2] else None]
            last = int(span[1]) + len(part) - 1
            raise Answer(part, 206, {**headers, "Content-Range": f"bytes {span[1]}-{last}/{len(blob.data)}"})
        raise Answer(blob.data, 200, headers)


class LocalHub(ThreadingHTTPServer):
    """The server, its repositories by kind and id, the requests that it received, and its planned faults."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.lock = threading.Lock()
        self.repos: dict[tuple[str, str], Repo] = {}
        self.large_files: dict[str, bytes] = {}
        self.requests: list[Record] = []
        self.faults: list[Fault] = []
        self.endpoint = f"http://127.0.0.1:{self.server_address[1]}"
        self.thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def __enter__(self) -> LocalHub:
        self.thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.shutdown()
        self.thread.join()
        self.server_close()

    def serve(
        self,
        kind: str,
        repo_id: str,
        folder: Path,
        *,
        private: bool = False,
        gated: bool = False,
        ref: str | None = None,
    ) -> Repo:
        """Serve the current files of a folder as a repository, or as a ref of an existing one."""
        repo = self.repos[kind, repo_id] = Repo(private, gated) if ref is None else self.repos[kind, repo_id]
        paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        files = {path.relative_to(folder).as_posix(): Blob(path, large=path.suffix in LARGE) for path in paths}
        repo.add("serve a folder", files, ref)
        return repo

    def environ(self, home: Path, token: str | None = WRITE_TOKEN) -> dict[str, str]:
        """The variables of a client process with its cache in `home`; without a token it is logged out."""
        login = {} if token is None else {"HF_TOKEN": token}
        quiet = {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "127.0.0.1"}
        return {"HF_ENDPOINT": self.endpoint, "HF_HOME": str(home), **quiet, **login}
