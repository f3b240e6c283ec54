"""Drives the Weixin test server with the Weixin adapter of the package hermes-agent: check.py SERVER_BINARY.

Each check is a coroutine named check_*, run against a server and with an adapter of its own. Every disagreement is told
and ends the run with status 1. A request that the server complains of is one, too.
"""

import asyncio
import base64
import contextlib
import io
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from importlib.metadata import version
from pathlib import Path

DEADLINE_S = 40
PEER = "peer@im.wechat"
KEY = bytes(range(16))

HOME = tempfile.TemporaryDirectory()
os.environ["HERMES_HOME"] = HOME.name

from gateway.config import PlatformConfig  # noqa: E402  (reads HERMES_HOME)
from gateway.platforms import weixin  # noqa: E402


class Disagreement(Exception):
    """The client saw something else than it sees of Weixin."""


def expect(what, seen, wanted):
    if seen != wanted:
        raise Disagreement(f"{what}: saw {seen!r}, wanted {wanted!r}")


class Server:
    """The test server as a process."""

    def __init__(self, binary, name):
        self.token, self.account = f"token-{name}", f"{name}@im.bot"
        command = [binary, "--token", self.token, "--account", self.account]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.url = self.process.stdout.readline().strip()
        if not self.url:
            raise Disagreement("the server does not start")

    def control(self, endpoint, body=None):
        data = None if body is None else json.dumps(body).encode()
        headers = {"content-type": "application/json"}
        request = urllib.request.Request(f"{self.url}/control/{endpoint}", data, headers)
        with urllib.request.urlopen(request, timeout=DEADLINE_S) as response:
            return json.load(response)

    def state(self):
        return self.control("state")

    def say(self, text):
        return self.control("say", {"user": PEER, "text": text})["message_id"]

    def say_items(self, *items):
        return self.control("say", {"user": PEER, "items": list(items)})["message_id"]

    def put(self, content):
        body = {"base64": base64.b64encode(content).decode(), "key": KEY.hex()}
        return self.control("put", body)["encrypt_query_param"]

    def fault(self, method, fault, times=1):
        self.control("fault", {"method": method, "times": times, "fault": fault})

    def refuse(self, method, ret, errmsg, times=1):
        body = {"ret": ret, "errcode": ret, "errmsg": errmsg}
        self.fault(method, {"kind": "answer", "code": 200, "body": body}, times)

    async def until(self, what, look):
        end = time.monotonic() + DEADLINE_S
        while time.monotonic() < end:
            found = look(await asyncio.to_thread(self.state))
            if found:
                return found
            await asyncio.sleep(0.02)
        raise Disagreement(f"waited in vain: {what}")

    def stop(self):
        self.process.terminate()
        self.process.wait()


class Client:
    """The adapter, with what it takes in."""

    def __init__(self, server):
        extra = {
            "account_id": server.account,
            "base_url": server.url,
            "cdn_base_url": f"{server.url}/c2c",
            "text_batch_delay_seconds": 0,
            "text_batch_split_delay_seconds": 0,
            "send_chunk_delay_seconds": "0.01",
            "send_chunk_retry_delay_seconds": "0.01",
            "dm_policy": "pairing",
        }
        config = PlatformConfig(enabled=True, token=server.token, extra=extra)
        self.adapter = weixin.WeixinAdapter(config)
        self.heard = asyncio.Queue()
        self.adapter.handle_message = self.heard.put

    async def next(self):
        return await asyncio.wait_for(self.heard.get(), DEADLINE_S)

    async def send(self, text):
        return await self.adapter.send(PEER, text)


async def check_receive(server, client):
    wanted = [server.say("one")]
    first = await client.next()
    expect("a text", (first.text, first.message_id), ("one", str(wanted[0])))
    expect("an id that an f64 cannot hold", wanted[0] > 2**63, True)
    server.say("two")
    expect("a text while a poll is held", (await client.next()).text, "two")
    idle = await server.until("a poll behind both", lambda state: state["confirmed"] == 2 and state)
    expect("the first cursor", idle["cursors"][0], "")
    expect("no more than once", client.heard.qsize(), 0)


async def check_cursor(server, client):
    await client.adapter.disconnect()
    for text in ["one", "two"]:
        server.say(text)

    async def poll(cursor):
        session = client.adapter._poll_session
        return await weixin._get_updates(
            session, base_url=server.url, token=server.token, sync_buf=cursor, timeout_ms=20_000
        )

    async with weixin.aiohttp.ClientSession() as session:
        client.adapter._poll_session = session
        texts = lambda answer: [weixin._extract_text(message["item_list"]) for message in answer["msgs"]]
        both = await poll("")
        expect("everything", texts(both), ["one", "two"])
        expect("the same again", texts(await poll("")), ["one", "two"])
        server.say("three")
        later = await poll(both["get_updates_buf"])
        expect("what is after a cursor", texts(later), ["three"])
        expect("the same again", texts(await poll(both["get_updates_buf"])), ["three"])
        server.control("set", {"hold_ms": 200, "longpolling_timeout_ms": 5000})
        empty = await poll(later["get_updates_buf"])
        expect("nothing after the last", (texts(empty), empty["longpolling_timeout_ms"]), ([], 5000))
        server.control("set", {"hold_ms": 10_000})
        poll_ms = weixin._get_updates(
            session, base_url=server.url, token=server.token, sync_buf=later["get_updates_buf"], timeout_ms=300
        )
        expect("a poll that the client gives up", (await poll_ms)["get_updates_buf"], later["get_updates_buf"])
        client.adapter._poll_session = None


async def check_send_echoes_the_latest_context(server, client):
    server.say("one")
    await client.next()
    server.say("two")
    await client.next()
    expect("a text is sent", (await client.send("hello")).success, True)
    [sent] = server.state()["sent"]
    expect("what the peer sees", sent["item"], {"type": 1, "text_item": {"text": "hello"}})
    expect("its context", (sent["is_latest_context"], bool(sent["context_token"])), (True, True))


async def check_long_texts(server, client):
    server.say("go on")
    await client.next()
    paragraphs = [letter * 1500 for letter in "abcd"]
    expect("a long text is sent", (await client.send("\n\n".join(paragraphs))).success, True)
    sent = server.state()["sent"]
    expect("the chunks", [one["item"]["text_item"]["text"].strip() for one in sent], paragraphs)
    expect("their names", len({one["client_id"] for one in sent}), 4)
    expect("repeats", [one["is_repeat"] for one in sent], [False] * 4)


async def check_typing(server, client):
    server.say("hello")
    await client.next()
    await client.adapter.send_typing(PEER)
    await client.adapter.stop_typing(PEER)
    expect("typing", server.state()["typing"], [{"user": PEER, "status": status} for status in (1, 2)])


async def check_media_up(server, client):
    content = os.urandom(70_001)
    with tempfile.TemporaryDirectory() as folder:
        for suffix in ("png", "mp4", "pdf"):
            path = Path(folder) / f"a.{suffix}"
            path.write_bytes(content)
            caption = "a caption" if suffix == "png" else ""
            await client.adapter._send_file(PEER, str(path), caption)
            server.control("set", {"upload_base": f"{server.url}/c2c"})
    sent = server.state()["sent"]
    expect("the kinds", [one["item"]["type"] for one in sent], [1, 2, 5, 4])
    for one, name in zip(sent[1:], ("image_item", "video_item", "file_item")):
        media = one["item"][name]["media"]
        stored = server.control("file", media["encrypt_query_param"])
        expect(f"the content of {name}", base64.b64decode(stored) == content, True)


async def check_media_down(server, client):
    content = os.urandom(5000)
    param = server.put(content)
    raw = base64.b64encode(KEY).decode()
    of_hex = base64.b64encode(KEY.hex().encode()).decode()

    def reference(key):
        return {"encrypt_query_param": param, "aes_key": key, "encrypt_type": 1}

    media = [
        ({"type": 2, "image_item": {"media": reference(raw)}}, ("image/jpeg", None)),
        ({"type": 2, "image_item": {"media": reference("wrong"), "aeskey": KEY.hex()}}, ("image/jpeg", None)),
        ({"type": 4, "file_item": {"media": reference(of_hex), "file_name": "a.pdf", "len": "5000"}}, ("application/pdf", content)),
        ({"type": 5, "video_item": {"media": reference(of_hex)}}, ("video/mp4", content)),
        ({"type": 3, "voice_item": {"media": reference(raw), "encode_type": 6}}, ("audio/silk", content)),
    ]
    # The adapter keeps only what begins like an image.
    content_png = b"\x89PNG\r\n\x1a\n" + content
    for item, (kind, wanted) in media:
        if wanted is None:
            item["image_item"]["media"]["encrypt_query_param"] = server.put(content_png)
            wanted = content_png
        server.say_items(item)
        event = await client.next()
        expect("the kind", event.media_types, [kind])
        expect(f"the content of {kind}", Path(event.media_urls[0]).read_bytes() == wanted, True)
    server.say_items({"type": 3, "voice_item": {"text": "what was said"}})
    expect("a transcript", (await client.next()).text, "what was said")
    quoted = {"type": 1, "text_item": {"text": "before"}}
    server.say_items({"type": 1, "text_item": {"text": "after"}, "ref_msg": {"title": "Ann", "message_item": quoted}})
    text = (await client.next()).text
    expect("a quote", all(word in text for word in ("before", "after", "Ann")), True)


async def check_stale_context(server, client):
    server.say("hello")
    await client.next()
    server.control("set", {"stale_contexts": list(server.state()["contexts"].values())})
    expect("a text is sent", (await client.send("late")).success, True)
    state = server.state()
    expect("what was tried", len([call for call in state["calls"] if call["method"] == "sendmessage"]), 2)
    [sent] = state["sent"]
    expect("it is without a context", sent["context_token"], None)


async def check_stale_token(server, client):
    await server.until("a held poll", lambda state: state["cursors"])
    server.control("set", {"is_stale": True})
    sent = await client.send("into the void")
    expect("nothing is sent", (sent.success, server.state()["sent"]), (False, []))
    wrong = await weixin._send_message(
        client.adapter._send_session, base_url=server.url, token="another", to=PEER, text="x", context_token=None, client_id="c"
    )
    expect("a wrong token", (wrong["ret"], wrong["errcode"]), (-14, -14))


async def check_faults(server, client):
    server.refuse("sendmessage", -2, "too often")
    limited = await client.send("one")
    expect("a rate limit", (limited.success, "rate limit" in (limited.error or "").lower()), (False, True))
    client.adapter._reset_rate_limit_circuit()
    for fault in ({"kind": "html", "code": 502}, {"kind": "reset"}, {"kind": "malformed"}):
        server.fault("sendmessage", fault)
        expect(f"a text after {fault['kind']}", (await client.send(fault["kind"])).success, True)
    state = server.state()
    expect("what is shown", [sent["item"]["text_item"]["text"] for sent in state["sent"]], ["html", "reset", "malformed"])
    server.fault("sendmessage", {"kind": "done_reset"})
    expect("a lost answer", (await client.send("twice")).success, True)
    names = [(sent["client_id"], sent["is_repeat"]) for sent in server.state()["sent"][3:]]
    expect("it comes again under its name", [name[1] for name in names], [False, True])
    expect("the name", names[0][0], names[1][0])


async def check_qr_login(server, client):
    answers = [{"status": "wait"}, {"status": "scaned"}, {"status": "expired"}, {"status": "scaned"}, {"status": "confirmed"}]
    server.control("set", {"qr_script": [{"answer": answer, "code": None} for answer in answers]})
    weixin.ILINK_BASE_URL = server.url
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        credentials = await weixin.qr_login(HOME.name, timeout_seconds=DEADLINE_S)
    wanted = {"account_id": server.account, "token": server.token, "base_url": server.url, "user_id": "scanner@im.wechat"}
    expect("the credentials", credentials, wanted)
    codes = server.state()["qr_codes"]
    expect("the codes", (len(codes), [f"{server.url}/scan/{code}" in shown.getvalue() for code in codes]), (2, [True, True]))


async def run(check, binary):
    server = Server(binary, check.__name__)
    client = Client(server)
    try:
        expect("it connects", await client.adapter.connect(), True)
        await asyncio.wait_for(check(server, client), DEADLINE_S)
        expect("complaints", server.state()["complaints"], [])
    finally:
        await client.adapter.disconnect()
        server.stop()


async def main(binary):
    logging.disable()  # The adapter logs each error, and here some are meant to be.
    checks = [check for name, check in globals().items() if name.startswith("check_")]
    outcomes = await asyncio.gather(*[run(check, binary) for check in checks], return_exceptions=True)
    failed = [(check, outcome) for check, outcome in zip(checks, outcomes) if outcome is not None]
    for check, outcome in failed:
        print(f"weixin test server: {check.__name__}: {type(outcome).__name__}: {outcome}", file=sys.stderr)
    if failed:
        sys.exit(1)
    print(f"weixin test server: agrees with hermes-agent {version('hermes-agent')} in {len(checks)} checks")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
