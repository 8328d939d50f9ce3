"""Retries changes on the Hub, and explains the Hub's errors to the user.

huggingface_hub 2.4 does not repeat a failed commit, and repeating one whose response was lost would commit twice. So the
function passed to `with_retry` must check the state of the repository before it changes anything.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import httpx2
from huggingface_hub import constants
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from finetune.errors import HubError, InputError, OfflineError, SlmtuneError, UnknownNameError
from finetune.hub.retry import LONGEST_WAIT, TRANSIENT, WAITS, UnreachableError, install_retry, pause, requested_wait
from finetune.hub.settings import is_offline

T = TypeVar("T")

LOGIN = "Log in with: hf auth login"
DATA_SET = "data set on the Hub called"
UNREACHABLE = (OfflineModeIsEnabled, LocalEntryNotFoundError, httpx2.TransportError, ConnectionError)


def with_retry(call: Callable[[], T], *, also: Collection[int] = ()) -> T:
    """Return the result of `call`, repeating it after transient failures and after the HTTP statuses in `also`."""
    for wait in WAITS:
        try:
            return call()
        except (httpx2.HTTPError, OSError, RuntimeError, ValueError) as error:
            cause = _root(error)
            delay = max(wait, _requested_wait(cause))
            if not _may_pass(cause, also) or delay > LONGEST_WAIT:
                raise
            pause(delay, _summary(cause))
    return call()


@contextmanager
def explain_errors(
    repo_id: str, *, what: str = "repository", known: Iterable[str] = (), user: str = "", instead: str = ""
) -> Iterator[None]:
    """Turn each error of the client into one paragraph.

    Args:
        repo_id: the requested repository.
        what: the kind of repository, as in "There is no ...".
        known: names from which to suggest the closest if the Hub has no such repository.
        user: the user who is logged in, named when access is refused.
        instead: what to do if neither the cache nor the Hub has it; empty: the cache does not matter.

    Raises:
        OfflineError: the network is forbidden or, with `instead`, the Hub cannot be reached.
        UnknownNameError: no such repository or revision, or none that this user may read.
        HubError: the Hub refused the request or cannot be reached.
        InputError: the user is not logged in, or something local is wrong.
    """
    if is_offline() and not instead:
        raise OfflineError(
            f"{repo_id} is on the Hub, and the network is forbidden (--offline). Run again without --offline"
        )
    install_retry()
    try:
        yield
    except SlmtuneError:
        raise
    except (httpx2.HTTPError, OSError, RuntimeError, ValueError) as error:
        cause = _root(error)
        if isinstance(cause, RepositoryNotFoundError | HFValidationError) and not isinstance(cause, GatedRepoError):
            raise UnknownNameError(what, repo_id, known, f"If it is private: {LOGIN[0].lower()}{LOGIN[1:]}") from None
        if isinstance(cause, UNREACHABLE):
            raise _explain_unreachable(cause, repo_id, instead) from None
        raise _explain_refusal(cause, f"{'datasets/' if what == DATA_SET else ''}{repo_id}", repo_id, user) from None


def not_cached(repo_id: str, instead: str) -> OfflineError:
    """The error for something that is not cached and cannot be downloaded; `instead` says what to do."""
    why = "the network is forbidden (--offline)" if is_offline() else "the Hub cannot be reached"
    return OfflineError(f"{repo_id} is not in the cache, and {why}. {instead}")


def _explain_unreachable(error: BaseException, repo_id: str, instead: str) -> SlmtuneError:
    if instead:
        return not_cached(repo_id, instead)
    if isinstance(error, OfflineModeIsEnabled) and not isinstance(error, UnreachableError):
        return OfflineError("The network is forbidden (HF_HUB_OFFLINE). Unset it and try again")
    reason = str(error) if isinstance(error, UnreachableError) else type(error).__name__
    return HubError(
        f"The Hub at {constants.ENDPOINT} cannot be reached ({reason}). Check the connection and HF_ENDPOINT"
    )


def _explain_refusal(error: BaseException, page: str, repo_id: str, user: str) -> SlmtuneError:
    if isinstance(error, GatedRepoError):
        url = f"{constants.ENDPOINT}/{page}"
        return HubError(f"{repo_id} is gated: accept its terms at {url}, then log in with: hf auth login")
    if isinstance(error, RevisionNotFoundError):
        return UnknownNameError(
            "such revision of", repo_id, [], "Look at the branches, tags and commits of the repository."
        )
    if isinstance(error, HfHubHTTPError):
        return _status_error(error, repo_id, user)
    if isinstance(error, OSError) and error.errno:
        return InputError(f"Cannot read or write {error.filename or 'a file'}: {error.strerror}")
    return HubError(f"The communication with the Hub about {repo_id} failed: {_summary(error)}")


def _status_error(error: HfHubHTTPError, repo_id: str, user: str) -> SlmtuneError:
    status = error.response.status_code
    if status == 401:
        return InputError(f"The Hub does not accept the token for {repo_id}. {LOGIN} (HF_TOKEN takes precedence)")
    if status == 403:
        who = f" You are {user}." if user else ""
        return HubError(
            f"The Hub refuses access to {repo_id}.{who} Writing needs a token with write access "
            "(https://huggingface.co/settings/tokens) and a namespace that is yours"
        )
    if status == 429:
        return HubError(f"Too many requests: the Hub asks to wait {_requested_wait(error):.0f} s. Try again later")
    if status in {409, 412}:
        return HubError(f"{repo_id} is being changed by someone else, so nothing was committed. Try again later")
    if status >= 500:
        return HubError(
            f"The Hub answered {status} for {repo_id}, {len(WAITS) + 1} times. Try again later: what is transferred is kept"
        )
    return HubError(f"The Hub answered {status} for {repo_id}: {_summary(error)}")


def _root(error: BaseException) -> BaseException:
    """The underlying error: the client wraps failures of single files."""
    while isinstance(error, LocalEntryNotFoundError | RuntimeError) and error.__cause__ is not None:
        error = error.__cause__
    return error


def _may_pass(error: BaseException, also: Collection[int]) -> bool:
    """Whether the same request may succeed a little later."""
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code in {*TRANSIENT, *also}
    if isinstance(error, OfflineModeIsEnabled | HFValidationError):
        return False
    if isinstance(error, json.JSONDecodeError):  # the error page of a proxy instead of JSON
        return True
    cut_short = isinstance(error, OSError) and error.errno is None  # the client checks the length of a download
    return cut_short or isinstance(error, httpx2.TransportError)


def _requested_wait(error: BaseException) -> float:
    return requested_wait(error.response) if isinstance(error, HfHubHTTPError) else 0.0


def _summary(error: BaseException) -> str:
    """A short description for a log line, without the query of a URL or any header."""
    if isinstance(error, HfHubHTTPError):
        detail = (error.server_message or "").strip().splitlines()
        return f"status {error.response.status_code}" + (f" ({detail[0]})" if detail else "")
    text = " ".join(str(error).split()).rstrip(".")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
