"""Drives the Telegram test server with python-telegram-bot: check.py SERVER_BINARY.

Each check is a coroutine named check_*, run against a server of its own. The first disagreement is told and ends
the run with status 1.
"""

import asyncio
import json
import logging
import subprocess
import sys
import tempfile
import time
import urllib.request
from datetime import timedelta
from pathlib import Path

import telegram
from telegram.error import BadRequest, Conflict, EndPointNotFound, Forbidden, InvalidToken, NetworkError, RetryAfter
from telegram.request import HTTPXRequest

TOKEN = "4242:a-token-for-this-check"
DEADLINE_S = 30


class Disagreement(Exception):
    """The client saw something that Telegram does not do."""


def expect(what, seen, wanted):
    if seen != wanted:
        raise Disagreement(f"{what}: saw {seen!r}, wanted {wanted!r}")


async def refused(what, kind, call):
    """Waits for `call` to fail with exactly `kind`, and returns the error."""
    try:
        result = await call
    except telegram.error.TelegramError as error:
        expect(what, type(error), kind)
        return error
    raise Disagreement(f"{what}: succeeded with {result!r}, wanted {kind.__name__}")


class Server:
    """The test server as a process."""

    def __init__(self, binary, state_file):
        command = [binary, "--token", TOKEN, "--state-file", state_file]
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

    def say(self, text, user=7, chat=7):
        return self.control("say", {"user": user, "chat": chat, "text": text})["update_id"]

    def fault(self, method, fault, times=1):
        self.control("fault", {"method": method, "times": times, "fault": fault})

    def bot(self, token=TOKEN):
        return telegram.Bot(token, base_url=f"{self.url}/bot", request=HTTPXRequest(), get_updates_request=HTTPXRequest())

    def stop(self):
        self.process.terminate()
        self.process.wait()


async def check_get_me(server, bot):
    expect("the name of the bot", bot.username, "HermesTestBot")
    expect("the id of the bot", bot.id, 4242)


async def check_wrong_token_and_method(server, bot):
    other = server.bot("4242:wrong")
    await refused("a wrong token", InvalidToken, other.get_me())
    await refused("an unknown method", EndPointNotFound, bot.do_api_request("noSuchMethod"))


async def check_long_poll_wakes(server, bot):
    poll = asyncio.create_task(bot.get_updates(timeout=20))
    while not any(call["method"] == "getUpdates" for call in server.control("state")["calls"]):
        await asyncio.sleep(0.01)
    began = time.monotonic()
    update_id = server.say("hello")
    updates = await poll
    expect("updates", [(u.update_id, u.message.text, u.message.chat.id) for u in updates], [(update_id, "hello", 7)])
    expect("a poll that waits for its whole time", time.monotonic() - began > 10, False)


async def check_poll_timeout(server, bot):
    began = time.monotonic()
    expect("updates", list(await bot.get_updates(timeout=1)), [])
    expect("a poll that is not held", time.monotonic() - began < 0.9, False)


async def check_offsets(server, bot):
    ids = [server.say(str(n)) for n in range(5)]

    async def seen(**params):
        return [update.update_id for update in await bot.get_updates(timeout=0, **params)]

    expect("all updates", await seen(), ids)
    expect("unconfirmed updates again", await seen(), ids)
    expect("an offset on an update", await seen(offset=ids[0]), ids)
    expect("a limit", await seen(limit=2), ids[:2])
    expect("an offset behind an update", await seen(offset=ids[1] + 1), ids[2:])
    expect("confirmed updates gone", await seen(), ids[2:])
    expect("a negative offset", await seen(offset=-1), ids[-1:])
    expect("those before it gone", await seen(), ids[-1:])


async def check_send_edit_delete(server, bot):
    await bot.send_chat_action(7, "typing")
    sent = await bot.send_message(7, "  one  ")
    expect("a sent text", (sent.text, sent.chat.type, sent.from_user.is_bot), ("one", "private", True))
    edited = await bot.edit_message_text("two", chat_id=7, message_id=sent.message_id)
    expect("an edited text", (edited.text, edited.message_id), ("two", sent.message_id))
    same = await refused(
        "the same text", BadRequest, bot.edit_message_text("two", chat_id=7, message_id=sent.message_id)
    )
    expect("its error", "message is not modified" in str(same).lower(), True)
    gone = await refused("no such message", BadRequest, bot.edit_message_text("x", chat_id=7, message_id=999))
    expect("its error", str(gone), "Message to edit not found")
    [record] = server.control("messages?chat=7")
    expect("the history", [version["text"] for version in record["versions"]], ["  one  ", "two"])
    expect("a deletion", await bot.delete_message(7, sent.message_id), True)
    expect("what is left", server.control("messages?chat=7"), [])


async def check_text_limits(server, bot):
    await bot.send_message(7, "😀" * 2048)
    long = await refused("4097 units", BadRequest, bot.send_message(7, "😀" * 2048 + "x"))
    expect("its error", str(long), "Message is too long")
    blank = await refused("a blank text", BadRequest, bot.send_message(7, " \n"))
    expect("its error", str(blank), "Message text is empty")


async def check_conflicts(server, bot):
    first = asyncio.create_task(bot.get_updates(timeout=20))
    while server.control("state")["poller"] < 1:
        await asyncio.sleep(0.01)
    expect("the second poller", list(await bot.get_updates(timeout=0)), [])
    terminated = await refused("the first poller", Conflict, first)
    expect("its error", "terminated by other getUpdates request" in str(terminated), True)
    await bot.set_webhook("https://example.org/hook")
    await refused("a poll beside a webhook", Conflict, bot.get_updates(timeout=0))
    expect("the webhook", (await bot.get_webhook_info()).url, "https://example.org/hook")
    await bot.delete_webhook()
    expect("a poll after it", list(await bot.get_updates(timeout=0)), [])


async def check_faults(server, bot):
    server.fault("sendMessage", {"kind": "refuse", "code": 429, "description": "Too Many Requests", "retry_after": 17})
    flood = await refused("429", RetryAfter, bot.send_message(7, "x"))
    wait = flood.retry_after
    expect("its seconds", wait.total_seconds() if isinstance(wait, timedelta) else wait, 17)
    for fault in [{"kind": "refuse", "code": 500}, {"kind": "html", "code": 502}, {"kind": "reset"}]:
        server.fault("sendMessage", fault)
        await refused(fault["kind"], NetworkError, bot.send_message(7, "x"))
    expect("what was shown", server.control("messages?chat=7"), [])
    server.fault("sendMessage", {"kind": "done_reset"})
    await refused("a lost answer", NetworkError, bot.send_message(7, "x"))
    expect("what was shown", len(server.control("messages?chat=7")), 1)


async def check_unreachable_chats(server, bot):
    server.control("reach", {"chat": 7, "reach": "blocked"})
    await refused("a user who blocked the bot", Forbidden, bot.send_message(7, "x"))
    server.control("reach", {"chat": 7, "reach": "not_found"})
    missing = await refused("no such chat", BadRequest, bot.send_message(7, "x"))
    expect("its error", str(missing), "Chat not found")
    server.control("reach", {"chat": -7, "reach": {"moved": -1007}})
    moved = await refused("a group that moved", telegram.error.ChatMigrated, bot.send_message(-7, "x"))
    expect("its new id", moved.new_chat_id, -1007)


async def check_commands(server, bot):
    commands = [("status", "What runs")]
    expect("setMyCommands", await bot.set_my_commands(commands), True)
    expect("the menu", [(c.command, c.description) for c in await bot.get_my_commands()], commands)


async def check_uploads_and_topics(server, bot):
    # A file makes the client send multipart; getFile knows no file.
    await refused("a method that is not there", InvalidToken, bot.send_document(7, b"bytes", filename="f"))
    await refused("no such file", BadRequest, bot.get_file("none"))
    sent = await bot.send_message(-1001234567890, "x", message_thread_id=3)
    expect("a topic", (sent.message_thread_id, sent.is_topic_message, sent.chat.type), (3, True, "supergroup"))


async def check_multipart_parameters(server, bot):
    body = b"".join(
        b'--b\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n' % (key, value.encode())
        for key, value in [(b"chat_id", "7"), (b"text", "äö\nü")]
    )
    headers = {"content-type": "multipart/form-data; boundary=b"}
    url = f"{server.url}/bot{TOKEN}/sendMessage"
    request = urllib.request.Request(url, body + b"--b--\r\n", headers)
    with urllib.request.urlopen(request, timeout=DEADLINE_S) as response:
        expect("a multipart text", json.load(response)["result"]["text"], "äö\nü")


async def run(check, binary, folder):
    server = Server(binary, str(folder / f"{check.__name__}.json"))
    try:
        async with server.bot() as bot:
            await asyncio.wait_for(check(server, bot), DEADLINE_S)
    finally:
        server.stop()


async def main(binary):
    logging.disable()  # The client logs each answer it cannot read, and here some are meant to be.
    checks = [check for name, check in globals().items() if name.startswith("check_")]
    with tempfile.TemporaryDirectory() as folder:
        runs = [run(check, binary, Path(folder)) for check in checks]
        outcomes = await asyncio.gather(*runs, return_exceptions=True)
    failed = [(check, outcome) for check, outcome in zip(checks, outcomes) if outcome is not None]
    for check, outcome in failed:
        print(f"telegram test server: {check.__name__}: {type(outcome).__name__}: {outcome}", file=sys.stderr)
    if failed:
        sys.exit(1)
    print(f"telegram test server: agrees with python-telegram-bot {telegram.__version__} in {len(checks)} checks")


asyncio.run(main(sys.argv[1]))
