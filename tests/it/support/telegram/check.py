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
import urllib.error
import urllib.parse
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
    await refused("a webhook without TLS", BadRequest, bot.set_webhook("http://example.org/hook"))
    await refused("a webhook on another port", BadRequest, bot.set_webhook("https://example.org:8080/hook"))
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
    chinese = [("status", "运行状况")]
    await bot.set_my_commands(chinese, scope=telegram.BotCommandScopeAllPrivateChats(), language_code="zh")
    seen = await bot.get_my_commands(scope=telegram.BotCommandScopeAllPrivateChats(), language_code="zh")
    expect("another menu", [(c.command, c.description) for c in seen], chinese)
    expect("the first menu", [c.description for c in await bot.get_my_commands()], ["What runs"])
    expect("a language without one", list(await bot.get_my_commands(language_code="de")), [])
    for wrong in [("Status", "x"), ("a" * 33, "x"), ("a", "x" * 257)]:
        await refused(f"the command {wrong}", BadRequest, bot.set_my_commands([wrong]))
    await refused("a language", BadRequest, bot.set_my_commands(commands, language_code="zh-hans"))


async def check_topics(server, bot):
    sent = await bot.send_message(-1001234567890, "x", message_thread_id=3)
    expect("a topic", (sent.message_thread_id, sent.is_topic_message, sent.chat.type), (3, True, "supergroup"))
    server.control("gone", {"chat": -1001234567890, "thread": 3})
    gone = await refused("a topic that is gone", BadRequest, bot.send_message(-1001234567890, "x", message_thread_id=3))
    expect("its error", str(gone), "Message thread not found")


async def check_replies(server, bot):
    server.say("a question", chat=-7)
    [update] = await bot.get_updates(timeout=0)
    asked = update.message.message_id
    sent = await bot.send_message(-7, "an answer", reply_parameters=telegram.ReplyParameters(asked))
    expect("what it answers", sent.reply_to_message.message_id, asked)
    server.control("gone", {"chat": -7, "message_id": asked})
    for missing in [asked, 999]:
        reply = telegram.ReplyParameters(missing)
        error = await refused("an answer to nothing", BadRequest, bot.send_message(-7, "x", reply_parameters=reply))
        expect("its error", str(error), "Message to be replied not found")
    optional = telegram.ReplyParameters(asked, allow_sending_without_reply=True)
    sent = await bot.send_message(-7, "all the same", reply_parameters=optional)
    expect("an answer to what may be gone", sent.reply_to_message, None)


async def check_entities(server, bot):
    link = telegram.MessageEntity("text_link", 3, 4, url="https://example.org/")
    bold = telegram.MessageEntity("bold", 0, 7)
    sent = await bot.send_message(7, "😀 link!", entities=[bold, link])
    seen = [(kind.type, text) for kind, text in sent.parse_entities().items()]
    expect("entities", seen, [("bold", "😀 link"), ("text_link", "link")])
    edited = await bot.edit_message_text("😀 link!", 7, sent.message_id)
    expect("entities taken away", edited.entities, ())
    shifted = await bot.send_message(7, "  x  ", entities=[telegram.MessageEntity("italic", 1, 3)])
    expect("a trimmed text", [(e.offset, e.length) for e in shifted.entities], [(0, 1)])
    html = await bot.send_message(7, "<b>a &lt; <i>b</i></b>", parse_mode="HTML")
    expect("HTML", (html.text, html.text_html), ("a < b", "<b>a &lt; <i>b</i></b>"))
    expect("what is shown", server.control("messages?chat=7")[-1]["versions"][-1]["text"], "a < b")
    wrong = [(kind, 0, 1) for kind in ["unknown", "text_link"]] + [("bold", 0, 9), ("bold", 1, 1), ("bold", 0, 0)]
    for kind, offset, length in wrong:
        entities = [telegram.MessageEntity(kind, offset, length)]
        await refused(f"{kind} {offset} {length}", BadRequest, bot.send_message(7, "😀 link!", entities=entities))
    crossed = [telegram.MessageEntity("bold", 0, 4), telegram.MessageEntity("italic", 2, 4)]
    await refused("entities that cross", BadRequest, bot.send_message(7, "😀 link!", entities=crossed))
    for marked in ["<b>open", "<u>a</b>", "<blink>a</blink>"]:
        await refused(marked, BadRequest, bot.send_message(7, marked, parse_mode="HTML"))
    await refused("a parse mode", BadRequest, bot.send_message(7, "x", parse_mode="troff"))


async def check_drafts(server, bot):
    expect("a draft", await bot.send_message_draft(7, 5, "th"), True)
    bold = telegram.MessageEntity("bold", 0, 5)
    expect("the same draft", await bot.send_message_draft(7, 5, "think", entities=[bold]), True)
    shown = server.control("draft?chat=7")
    expect("what it shows", (shown["text"], len(shown["draft"]["versions"])), ("think", 2))
    await bot.send_message_draft(7, 6, "other")
    expect("another draft", len(server.control("draft?chat=7")["draft"]["versions"]), 1)
    await refused("no id", BadRequest, bot.send_message_draft(7, 0, "x"))
    await refused("a group", BadRequest, bot.send_message_draft(-7, 5, "x"))
    await refused("4097 units", BadRequest, bot.send_message_draft(7, 5, "x" * 4097))
    await bot.send_message(7, "thought")
    expect("what is left", server.control("draft?chat=7")["text"], None)


async def check_keyboards(server, bot):
    def keyboard(data):
        return telegram.InlineKeyboardMarkup([[telegram.InlineKeyboardButton("Yes", callback_data=data)]])

    for data in ["x" * 65, "ü" * 33]:
        await refused("long data", BadRequest, bot.send_message(7, "?", reply_markup=keyboard(data)))
    sent = await bot.send_message(7, "Do it?", reply_markup=keyboard("/approve 1"))
    expect("a keyboard", sent.reply_markup.inline_keyboard[0][0].callback_data, "/approve 1")
    press = {"user": 7, "chat": 7, "message_id": sent.message_id, "data": "/approve 1"}
    pressed = server.control("press", press)["id"]
    [update] = await bot.get_updates(timeout=0, allowed_updates=["message", "callback_query"])
    query = update.callback_query
    seen = (query.id, query.data, query.from_user.id, query.message.message_id, query.message.chat.id)
    expect("a press", seen, (pressed, "/approve 1", 7, sent.message_id, 7))
    await refused("a query that is not there", BadRequest, bot.answer_callback_query("1"))
    expect("an answer", await bot.answer_callback_query(pressed, text="Done"), True)
    expect("what it says", server.control("state")["presses"][pressed]["answer"]["text"], "Done")
    await refused("a second answer", BadRequest, bot.answer_callback_query(pressed))
    edited = await bot.edit_message_reply_markup(7, sent.message_id, reply_markup=None)
    expect("a keyboard taken away", (edited.reply_markup, edited.text), (None, "Do it?"))
    same = await refused("the same", BadRequest, bot.edit_message_reply_markup(7, sent.message_id, reply_markup=None))
    expect("its error", "message is not modified" in str(same).lower(), True)
    sent = await bot.send_message(7, "?", reply_markup=keyboard("a"))
    expect("an edit takes it", (await bot.edit_message_text("!", 7, sent.message_id)).reply_markup, None)
    kinds = ["message"]
    await bot.get_updates(timeout=0, offset=update.update_id + 1, allowed_updates=kinds)
    sent = await bot.send_message(7, "?", reply_markup=keyboard("a"))
    server.control("press", {"user": 7, "chat": 7, "message_id": sent.message_id, "data": "a"})
    expect("a kind that is not wanted", list(await bot.get_updates(timeout=0)), [])


def download(server, file, token=TOKEN):
    path = urllib.parse.urlsplit(file.file_path).path.split(f"/bot{TOKEN}/")[-1]
    with urllib.request.urlopen(f"{server.url}/file/bot{token}/{path}", timeout=DEADLINE_S) as response:
        return response.read()


async def check_files(server, bot):
    def media(kind, more=None):
        server.control("media", {"user": 7, "chat": 7, "media": kind, "more": more or {}})

    media({"photo": [[90, 60, 1000], [900, 600, 70000]]}, {"caption": "see", "media_group_id": "5"})
    media({"document": {"name": "a.txt", "mime": "text/plain", "bytes": 300}})
    media({"voice": 10})
    media({"audio": 11})
    media({"video": 12})
    media({"document": {"name": "big", "mime": "a/b", "bytes": 21 << 20}})
    photo, document, voice, audio, video, big = [update.message for update in await bot.get_updates(timeout=0)]
    sizes = [(size.width, size.height, size.file_size) for size in photo.photo]
    expect("a photo", (photo.caption, photo.media_group_id, sizes), ("see", "5", [(90, 60, 1000), (900, 600, 70000)]))
    seen = (document.document.file_name, document.document.mime_type, document.document.file_size)
    expect("a document", seen, ("a.txt", "text/plain", 300))
    expect("the others", (voice.voice.file_size, audio.audio.file_size, video.video.file_size), (10, 11, 12))
    file = await bot.get_file(document.document.file_id)
    expect("its bytes", download(server, file), bytes(at % 251 for at in range(300)))
    try:
        download(server, file, "4242:wrong")
        raise Disagreement("a download with another token")
    except urllib.error.HTTPError as error:
        expect("a download with another token", error.code, 404)
    too_big = await refused("a big file", BadRequest, bot.get_file(big.document.file_id))
    expect("its error", str(too_big), "File is too big")
    await refused("no such file", BadRequest, bot.get_file("none"))


async def check_uploads(server, bot):
    raw = bytes(range(256)) + b"\r\n--x\r\n\r\n"
    sent = await bot.send_document(7, raw, filename="f.bin", caption="here")
    expect("a document", (sent.document.file_name, sent.document.file_size, sent.caption), ("f.bin", len(raw), "here"))
    expect("its bytes", download(server, await bot.get_file(sent.document.file_id)), raw)
    again = await bot.send_document(7, sent.document.file_id)
    expect("the same file", again.document.file_id, sent.document.file_id)
    photo = await bot.send_photo(7, raw)
    expect("a photo", photo.photo[-1].file_size, len(raw))
    await refused("a long caption", BadRequest, bot.send_document(7, raw, caption="x" * 1025))
    await refused("no such file", BadRequest, bot.send_document(7, "none"))


class Hook:
    """A bot's end of a webhook: answers 500 as often as it is told, and keeps what was posted."""

    def __init__(self, refusals):
        self.posts, self.refusals = [], refusals

    async def __aenter__(self):
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        self.url = "http://127.0.0.1:%d/hook" % self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self.server.close()

    async def serve(self, reader, writer):
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                headers = dict(line.lower().split(": ", 1) for line in head.decode().strip().split("\r\n")[1:])
                body = await reader.readexactly(int(headers["content-length"]))
                self.posts.append((headers.get("x-telegram-bot-api-secret-token"), json.loads(body)))
                status = b"200 OK"
                if self.refusals > 0:
                    self.refusals -= 1
                    status = b"500 Internal Server Error"
                writer.write(b"HTTP/1.1 %s\r\ncontent-length: 0\r\n\r\n" % status)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


async def check_webhook(server, bot):
    async with Hook(refusals=2) as hook:
        await refused("a secret", BadRequest, bot.set_webhook(hook.url, secret_token="a b"))
        update_id = server.say("before")
        kinds = ["message"]
        await bot.set_webhook(hook.url, secret_token="abc_-1", allowed_updates=kinds, max_connections=1)
        while (info := await bot.get_webhook_info()).pending_update_count > 0:
            await asyncio.sleep(0.01)
        updates = [telegram.Update.de_json(post, bot) for _, post in hook.posts]
        seen = [(update.update_id, update.message.text, update.effective_user.id) for update in updates]
        expect("each post until it is confirmed", seen, [(update_id, "before", 7)] * 3)
        expect("the secret", {secret for secret, _ in hook.posts}, {"abc_-1"})
        expect("what is told of it", (info.url, info.max_connections, info.allowed_updates), (hook.url, 1, ("message",)))
        expect("the last error", info.last_error_message, "Wrong response from the webhook: 500 Internal Server Error")
        await bot.delete_webhook()
        server.say("after")
        [update] = await bot.get_updates(timeout=0)
        expect("what came after it", (update.message.text, len(hook.posts)), ("after", 3))
        await bot.set_webhook(hook.url, drop_pending_updates=True)
        expect("what was dropped", (await bot.get_webhook_info()).pending_update_count, 0)


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
