"""The page's JSON API over a real queue, on a real port, called as a browser would and as nobody should."""

from __future__ import annotations

import asyncio
from hashlib import sha256

import aiohttp
import pytest

from fallback.answer import Identity, Label
from fallback.config import Config, QueueSettings
from fallback.deferral import State
from fallback.identity import Credentials
from fallback.queue import Queue
from fallback.workbench.app import build
from fallback.workbench.guard import BODY_BYTES_MAX
from tests.serving import served
from tests.unit.fallback.workbench.calls import REQUEST_ID, Page, opened


async def test_an_item_is_taken_held_and_answered(page: Page) -> None:
    """Lease, extend, submit: the outcome is the person's, and the guess is told afterwards."""
    name = await page.park()
    lease = await page.lease()
    assert (lease["deferral"], lease["blind"], lease["prediction"]) == (name, True, None)
    status, extended = await page.call("extend", {"token": lease["token"], "request_id": REQUEST_ID})
    assert (status, extended) == (200, {"lease_seconds": 120.0})
    answer = {"type": "label", "label": "3"}
    body = {"token": lease["token"], "answer": answer, "comment": "a bar", "request_id": REQUEST_ID + "2"}
    status, submitted = await page.call("submit", body)
    assert (status, submitted["open"], submitted["model_agreed"]) == (200, False, False)
    assert submitted["prediction"]["answer"] == {"type": "label", "label": "8"}
    deferral = await page.queue.get(name)
    assert deferral.state is State.RESOLVED
    assert deferral.outcome is not None
    assert deferral.outcome.answer == Label(label="3")
    [review] = deferral.reviews
    assert (review.reviewer, review.comment, review.blind) == ("Ada", "a bar", True)
    assert await page.call("submit", body) == (200, submitted)


async def test_an_answer_is_taken_back_and_given_anew_without_the_guess(config: Config) -> None:
    """Undo gives the item back as blind as it was; the verdict tells of the guess when there is no undo any more."""
    config = Config(data_folder=config.data_folder, queues={"digits": QueueSettings(undo_seconds=1.0)})
    async with opened(config) as page:
        name = await page.park()
        lease = await page.lease()
        body = {"token": lease["token"], "answer": {"type": "label", "label": "3"}, "request_id": REQUEST_ID}
        _, submitted = await page.call("submit", body)
        assert (submitted["open"], submitted["undo_seconds"], submitted["prediction"]) == (True, 1.0, None)
        status, reply = await page.call("undo", {"deferral": name, "request_id": REQUEST_ID + "undo"})
        again = reply["lease"]
        assert (status, again["deferral"], again["blind"], again["prediction"]) == (200, name, True, None)
        status, error = await page.call("verdict", {"deferral": name})
        assert (status, error["code"]) == (409, "FAILED_PRECONDITION")
        body = {"token": again["token"], "answer": {"type": "label", "label": "8"}, "request_id": REQUEST_ID + "2"}
        assert (await page.call("submit", body))[1]["model_agreed"] is None
        assert (await page.call("verdict", {"deferral": name}))[1]["prediction"] is None
        for _ in range(50):
            _, told = await page.call("verdict", {"deferral": name})
            if not told["open"]:
                break
            await asyncio.sleep(0.1)
        assert (told["open"], told["model_agreed"], told["undo_seconds"]) == (False, True, 0)
        status, error = await page.call("undo", {"deferral": name, "request_id": REQUEST_ID + "late"})
        assert (status, error["code"]) == (409, "FAILED_PRECONDITION")
        status, error = await page.call("verdict", {"deferral": name}, name="Mallory")
        assert (status, error["code"]) == (409, "FAILED_PRECONDITION")


async def test_an_item_is_flagged_and_skipped(page: Page) -> None:
    """Both stand in the deferral; who skipped it does not get it again."""
    name = await page.park()
    lease = await page.lease()
    flag = {"deferral": name, "comment": "blurred", "request_id": REQUEST_ID}
    assert await page.call("flag", flag) == (200, {"flagged": True})
    skip = {"token": lease["token"], "reason": "not my field", "request_id": REQUEST_ID + "skip"}
    assert await page.call("skip", skip) == (200, {"skipped": True})
    deferral = await page.queue.get(name)
    assert [(one.reviewer, one.comment) for one in deferral.flags] == [("Ada", "blurred")]
    assert [(one.reviewer, one.reason) for one in deferral.skips] == [("Ada", "not my field")]
    assert await page.call("lease", {"queue": "digits"}) == (200, {"leases": []})
    assert len((await page.call("lease", {"queue": "digits"}, name="Bob"))[1]["leases"]) == 1


async def test_what_was_begun_comes_back_to_who_began_it(page: Page) -> None:
    """Saved while it is held, or with giving it back; others never see it."""
    await page.park()
    lease = await page.lease()
    assert lease["draft"] == ""
    draft = {"token": lease["token"], "draft": '{"a": 1}', "request_id": REQUEST_ID}
    assert await page.call("draft", draft) == (200, {"saved": True})
    release = {"releases": [{"token": lease["token"], "draft": '{"a": 2}', "request_id": REQUEST_ID + "2"}]}
    assert await page.call("release", release) == (200, {"released": 1})
    _, reply = await page.call("lease", {"queue": "digits"}, name="Bob")
    [others] = reply["leases"]
    assert others["draft"] == ""
    release = {"releases": [{"token": others["token"], "request_id": REQUEST_ID + "3"}]}
    await page.call("release", release, name="Bob")
    assert (await page.lease())["draft"] == '{"a": 2}'


@pytest.mark.parametrize(
    ("path", "body", "named"),
    [
        ("skip", {"token": "t", "reason": "", "escalate": True}, "reason"),
        ("skip", {"token": "t", "reason": "r", "escalate": "yes"}, "escalate"),
        ("lease", {"queue": "digits", "resume": 1}, "resume"),
        ("skip", {"token": "t", "reason": ""}, "reason"),
        ("skip", {"token": "t", "reason": "x" * 501}, "reason"),
        ("flag", {"deferral": "queues/digits/deferrals/d", "comment": ""}, "comment"),
        ("flag", {"deferral": "queues/digits/deferrals/d", "comment": "x" * 2_001}, "comment"),
        ("draft", {"token": "t", "draft": "x" * 65_537}, "draft"),
        ("undo", {"deferral": ""}, "deferral"),
        ("undo", {"deferral": "d", "reviewer": "Bob"}, "reviewer"),
    ],
)
async def test_what_is_out_of_bounds_is_refused_by_name(
    page: Page, path: str, body: dict[str, str], named: str
) -> None:
    """Before the queue is asked."""
    status, error = await page.call(path, body | {"request_id": REQUEST_ID})
    assert (status, error["code"]) == (400, "INVALID_ARGUMENT")
    assert named in error["message"]


async def test_a_released_item_is_there_for_others_and_releasing_twice_is_no_fault(page: Page) -> None:
    """What a closing tab sends may come late or twice."""
    await page.park()
    lease = await page.lease()
    assert await page.call("lease", {"queue": "digits"}, name="Bob") == (200, {"leases": []})
    release = {"releases": [{"token": lease["token"], "request_id": REQUEST_ID}]}
    assert await page.call("release", release) == (200, {"released": 1})
    late = {"releases": [{"token": lease["token"], "request_id": REQUEST_ID + "late"}]}
    assert await page.call("release", late) == (200, {"released": 0})
    status, reply = await page.call("lease", {"queue": "digits"}, name="Bob")
    assert (status, len(reply["leases"])) == (200, 1)


async def test_a_caller_who_hangs_up_holds_nothing(page: Page) -> None:
    """What is leased for a connection that has gone is given back at once, not when the lease lapses."""
    waiting = asyncio.create_task(page.call("lease", {"queue": "digits", "wait_seconds": 20}))
    await asyncio.sleep(0.3)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await page.park()
    status, reply = await page.call("lease", {"queue": "digits", "wait_seconds": 10}, name="Bob")
    assert (status, len(reply["leases"])) == (200, 1)


async def test_a_waiting_caller_gets_what_comes(page: Page) -> None:
    """A long poll ends with the first item."""
    waiting = asyncio.create_task(page.call("lease", {"queue": "digits", "wait_seconds": 20}))
    await asyncio.sleep(0.2)
    await page.park()
    status, reply = await waiting
    assert (status, len(reply["leases"])) == (200, 1)


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"Host": "evil.example"}, 403, "PERMISSION_DENIED"),
        ({"Origin": "https://evil.example"}, 403, "PERMISSION_DENIED"),
        ({"X-Demur-Page": None}, 403, "PERMISSION_DENIED"),
        ({"Sec-Fetch-Site": "cross-site"}, 403, "PERMISSION_DENIED"),
        ({"Content-Type": "text/plain"}, 400, "INVALID_ARGUMENT"),
        ({"X-Demur-Identity": None}, 401, "UNAUTHENTICATED"),
        ({"X-Demur-Identity": "a" * 65}, 400, "INVALID_ARGUMENT"),
        ({"X-Demur-Identity": "%00"}, 400, "INVALID_ARGUMENT"),
    ],
)
async def test_a_foreign_or_nameless_caller_gets_nothing(
    page: Page, headers: dict[str, str | None], status: int, code: str
) -> None:
    """Another site, a rebound name, a form, or nobody: refused before the queue is asked."""
    await page.park()
    got, error = await page.call("lease", {"queue": "digits"}, headers=headers)
    assert (got, error["code"]) == (status, code)
    [state] = await page.queue.states()
    assert (state.waiting, state.held) == (1, 0)


async def test_a_name_outside_ascii_is_a_name(page: Page) -> None:
    """The header carries UTF-8, percent-encoded."""
    status, session = await page.call("session", name="Zo%C3%AB%20%C5%81")
    assert (status, session["name"], session["sign_in"]) == (200, "Zoë Ł", "name")


async def test_with_credentials_only_a_token_says_who_calls(config: Config) -> None:
    """A name in a header is nothing then; the token's owner is who reviews, if they may."""
    config = Config(data_folder=config.data_folder, queues={"seen": QueueSettings(tiers=("reader",))})
    ada = Identity(name="Ada", roles=frozenset({"reviewer"}), skills=frozenset())
    tokens = {"ada-token": ada, "app-token": Identity(name="app")}
    credentials = Credentials([(sha256(token.encode()).digest(), who) for token, who in tokens.items()])
    queue = Queue.connect(config)
    async with served(build(queue, credentials, config)) as url, aiohttp.ClientSession() as session:
        page = Page(session, url, queue)
        assert (await page.call("session"))[1]["name"] is None
        assert (await page.call("queues"))[0] == 401
        assert (await page.call("queues", headers={"Authorization": "Bearer wrong"}))[0] == 401
        assert (await page.call("queues", headers={"Authorization": "Bearer app-token"}))[0] == 403
        _, told = await page.call("session", headers={"Authorization": "Bearer ada-token"})
        assert (told["name"], told["sign_in"], told["skills"]) == ("Ada", "token", [])
        status, error = await page.call("lease", {"queue": "seen"}, headers={"Authorization": "Bearer ada-token"})
        assert (status, error["code"]) == (403, "PERMISSION_DENIED")
        assert "skill reader" in error["message"]
    await queue.close()


@pytest.mark.parametrize(
    ("changes", "status", "code", "named"),
    [
        ({"token": "made-up"}, None, None, "lease"),
        ({"answer": {"type": "number", "number": 3}}, 400, "INVALID_ARGUMENT", "expects an answer of kind label"),
        ({"answer": {"type": "label", "label": "7"}}, 400, "INVALID_ARGUMENT", "answer.label: expected one of 3, 8"),
        ({"answer": {"type": "json", "json": "[" * 60_000}}, 400, "INVALID_ARGUMENT", "answer.json"),
        ({"answer": {"type": "poem"}}, 400, "INVALID_ARGUMENT", "poem"),
        ({"reviewer": "Bob"}, 400, "INVALID_ARGUMENT", "reviewer"),
        ({"request_id": ""}, 400, "INVALID_ARGUMENT", "request_id"),
        ({"comment": "x" * 10_001}, 400, "INVALID_ARGUMENT", "comment"),
        ({"comment": "x" * BODY_BYTES_MAX}, 400, "INVALID_ARGUMENT", "body: expected at most 1048576 bytes"),
    ],
)
async def test_an_answer_that_does_not_fit_is_refused_and_the_item_stays_held(
    page: Page, changes: dict[str, object], status: int | None, code: str | None, named: str
) -> None:
    """The sentence names the field, and the reviewer can answer again with the same lease."""
    await page.park()
    lease = await page.lease()
    body = {"token": lease["token"], "answer": {"type": "label", "label": "3"}, "request_id": REQUEST_ID}
    got, error = await page.call("submit", body | changes)
    assert got == status if status else got in {400, 404, 409}
    assert error["code"] == code if code else error["code"] in {"INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION"}
    assert named in error["message"]
    assert (await page.call("submit", body | {"request_id": REQUEST_ID + "again"}))[0] == 200


async def test_somebody_elses_lease_answers_nothing(page: Page) -> None:
    """A token is worth nothing in other hands."""
    await page.park()
    lease = await page.lease()
    body = {"token": lease["token"], "answer": {"type": "label", "label": "3"}, "request_id": REQUEST_ID}
    status, error = await page.call("submit", body, name="Mallory")
    assert (status, error["code"]) in {(409, "FAILED_PRECONDITION"), (403, "PERMISSION_DENIED")}
    assert (await page.call("extend", {"token": lease["token"], "request_id": REQUEST_ID}, name="Mallory"))[0] >= 400
    assert (await page.call("submit", body))[0] == 200


async def test_what_breaks_inside_is_not_told(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller learns an id to ask about, not the text of an exception."""

    async def broken() -> None:
        raise RuntimeError("secret path /etc/passwd")

    monkeypatch.setattr(page.queue, "states", broken)
    status, error = await page.call("queues")
    assert (status, error["code"]) == (500, "INTERNAL")
    assert "secret" not in error["message"]


async def test_every_reply_carries_the_strict_headers(page: Page) -> None:
    """The page, its files, the API and refusals alike."""
    for path in ("/", "/static/main.js", "/api/queues", "/nowhere"):
        async with page.session.get(page.url + path) as response:
            policy = response.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert response.headers["x-content-type-options"] == "nosniff"
            assert response.headers["referrer-policy"] == "no-referrer"


async def test_a_file_that_is_known_is_not_sent_again(page: Page) -> None:
    """Each file has an ETag, and there is no way to any other file."""
    async with page.session.get(f"{page.url}/static/main.js") as response:
        etag = response.headers["etag"]
    async with page.session.get(f"{page.url}/static/main.js", headers={"If-None-Match": etag}) as response:
        assert response.status == 304
    for path in ("/static/", "/static/%2e%2e/app.py", "/static/../app.py", "/static/index.html"):
        async with page.session.get(page.url + path) as response:
            assert response.status == 404
