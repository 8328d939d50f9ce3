"""One translator: the same failure has the same message, whatever the request to the Hub."""

from __future__ import annotations

import httpx2
import pytest
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from finetune.errors import HubError, InputError, OfflineError, SlmtuneError, UnknownNameError
from finetune.hub.client import DATA_SET, explain_errors

INSTEAD = "Give a local folder"


def answer(status: int) -> httpx2.Response:
    return httpx2.Response(status, request=httpx2.Request("GET", "https://huggingface.co/api"))


def wrapped(cause: Exception) -> LocalEntryNotFoundError:
    """A failure as the client raises it after a look into its cache."""
    error = LocalEntryNotFoundError("not in the cache")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (
            RepositoryNotFoundError("", response=answer(404)),
            UnknownNameError,
            "There is no model 'a/tinny'. Did you mean 'a/tiny'",
        ),
        (RevisionNotFoundError("", response=answer(404)), UnknownNameError, "no such revision of 'a/tinny'"),
        (GatedRepoError("", response=answer(403)), HubError, "accept its terms at https://huggingface.co/a/tinny"),
        (HfHubHTTPError("", response=answer(401)), InputError, "hf auth login"),
        (HfHubHTTPError("", response=answer(503)), HubError, "answered 503 for a/tinny"),
        (wrapped(HfHubHTTPError("", response=answer(503))), HubError, "answered 503 for a/tinny"),
        (httpx2.ConnectError("refused"), OfflineError, f"the Hub cannot be reached. {INSTEAD}"),
        (wrapped(httpx2.ConnectError("refused")), OfflineError, f"the Hub cannot be reached. {INSTEAD}"),
        (ConnectionResetError(104, "reset"), OfflineError, f"the Hub cannot be reached. {INSTEAD}"),
        (
            PermissionError(13, "Permission denied", "x.json"),
            InputError,
            "Cannot read or write x.json: Permission denied",
        ),
    ],
)
def test_errors_of_the_client_are_explained(error: Exception, kind: type[SlmtuneError], text: str) -> None:
    with (
        pytest.raises(SlmtuneError) as caught,
        explain_errors("a/tinny", what="model", known=["a/tiny"], instead=INSTEAD),
    ):
        raise error
    assert type(caught.value) is kind
    assert text in str(caught.value)


def test_a_change_on_the_hub_cannot_come_from_the_cache() -> None:
    with pytest.raises(HubError, match="cannot be reached"), explain_errors("a/b"):
        raise httpx2.ConnectError("refused")


def test_a_gated_data_set_has_its_own_page() -> None:
    with pytest.raises(HubError, match="/datasets/a/b"), explain_errors("a/b", what=DATA_SET):
        raise GatedRepoError("", response=answer(403))


def test_forbidden_network_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(OfflineError, match="--offline"), explain_errors("a/b"):
        pytest.fail("the block ran")
