"""Drives the DingTalk test server with DingTalk's Python SDK: check.py SERVER_BINARY.

The SDK reads its endpoint when it is imported, so each check runs in a process of its own (check.py SERVER_BINARY NAME),
against a server of its own. Each check is a coroutine named check_*. The first disagreement of each is told and ends the
run with status 1.

What the SDK has none of (messages that nobody asked for, streaming by another client) is called as its documentation
shows it.
"""

import asyncio
import json
import logging
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from importlib.metadata import version

CLIENT_ID = "ding-an-app-of-this-check"
SECRET = "a-secret-for-this-check"
DEADLINE_S = 40
BOT_MESSAGE = "/v1.0/im/bot/messages/get"
CARD_CALLBACK = "/v1.0/card/instances/callback"


class Disagreement(Exception):
    """The client saw something that DingTalk does not do."""


def expect(what, seen, wanted):
    if seen != wanted:
        raise Disagreement(f"{what}: saw {seen!r}, wanted {wanted!r}")


class Server:
    """The test server as a process."""

    def __init__(self, binary):
        command = [binary, "--client-id", CLIENT_ID, "--client-secret", SECRET]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.url = self.process.stdout.readline().strip()
        if not self.url:
            raise Disagreement("the server does not start")

    def call(self, path, body=None, verb=None, **headers):
        """HTTP status and JSON of a call that the SDK has none of."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"content-type": "application/json", **{k.replace("_", "-"): v for k, v in headers.items()}}
        request = urllib.request.Request(f"{self.url}{path}", data, headers, method=verb)
        try:
            with urllib.request.urlopen(request, timeout=DEADLINE_S) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def control(self, endpoint, body=None):
        status, answer = self.call(f"/control/{endpoint}", body)
        expect(f"the control endpoint {endpoint}", status, 200)
        return answer

    def state(self):
        return self.control("state")

    def say(self, said, user="manager1", group=None, **fields):
        say = {"user": user, "group": group, "text": said, "fields": fields}
        return self.control("say", say)["msgId"]

    async def until(self, what, look):
        """Waits for `look` at the state to find something."""
        deadline = time.monotonic() + DEADLINE_S / 2
        while time.monotonic() < deadline:
            found = look(self.state())
            if found:
                return found
            await asyncio.sleep(0.02)
        raise Disagreement(f"waited in vain: {what}: {json.dumps(self.state())}")

    async def connected(self, count=1):
        open_ = lambda state: [c for c in state["connections"] if c["phase"] == "open"]
        return await self.until(f"{count} open connections", lambda state: len(open_(state)) == count and open_(state))

    async def push_of(self, message_id):
        """The record of a push, once it is answered."""
        of = lambda state: [p for p in state["pushes"] if p["message_id"] == message_id and p["acks"]]
        [push] = await self.until("an answer", of)
        return push

    def stop(self):
        self.process.terminate()
        self.process.wait()


class Bot:
    """An app made with the SDK, connected in a thread of its own because parts of the SDK block."""

    def __init__(self, secret=SECRET):
        # Not before the environment has the endpoint.
        import dingtalk_stream

        self.sdk = dingtalk_stream
        self.client = dingtalk_stream.DingTalkStreamClient(dingtalk_stream.Credential(CLIENT_ID, secret))
        self.messages, self.events, self.cards = [], [], []
        bot = self

        class Messages(dingtalk_stream.ChatbotHandler):
            async def process(self, callback):
                bot.messages.append(dingtalk_stream.ChatbotMessage.from_dict(callback.data))
                return dingtalk_stream.AckMessage.STATUS_OK, "OK"

        class Events(dingtalk_stream.EventHandler):
            async def process(self, event):
                bot.events.append(event)
                # The first time it is too early.
                ok, later = dingtalk_stream.AckMessage.STATUS_OK, dingtalk_stream.AckMessage.STATUS_SYSTEM_EXCEPTION
                return (ok, "OK") if len(bot.events) > 1 else (later, "not now")

        class Cards(dingtalk_stream.CallbackHandler):
            async def process(self, callback):
                bot.cards.append(dingtalk_stream.CardCallbackMessage.from_dict(callback.data))
                return dingtalk_stream.AckMessage.STATUS_OK, {"cardData": {"cardParamMap": {}}}

        self.handler = Messages()
        self.client.register_all_event_handler(Events())
        self.client.register_callback_handler(dingtalk_stream.ChatbotMessage.TOPIC, self.handler)
        self.client.register_callback_handler(CARD_CALLBACK, Cards())

    def start(self):
        # Of no use to a loopback, and slow where there is no route.
        self.client.get_host_ip = lambda: "127.0.0.1"
        threading.Thread(target=lambda: asyncio.run(self.client.start()), daemon=True).start()
        return self

    async def message(self, server, count=1):
        await server.until(f"{count} messages", lambda _: len(self.messages) >= count)
        return self.messages[count - 1]


async def check_wrong_secret(server):
    expect("a connection with a wrong secret", Bot("wrong").client.open_connection(), None)
    expect("a token for a wrong secret", Bot("wrong").client.get_access_token(), None)
    body = {"clientId": CLIENT_ID, "clientSecret": "wrong", "subscriptions": [{"type": "EVENT", "topic": "*"}]}
    status, answer = server.call("/v1.0/gateway/connections/open", body, accept="application/json")
    expect("its refusal", (status, answer["code"]), (401, "authFailed"))


async def check_tickets(server):
    import websockets

    connection = Bot().client.open_connection()
    expect("the endpoint", connection["endpoint"], f"{server.url.replace('http', 'ws')}/connect")
    from urllib.parse import quote_plus

    address = f"{connection['endpoint']}?ticket={quote_plus(connection['ticket'])}"
    async with websockets.connect(address):
        await server.connected()
    for what, bad in [("a used ticket", address), ("no ticket", connection["endpoint"])]:
        try:
            async with websockets.connect(bad):
                raise Disagreement(f"{what} is taken")
        except websockets.exceptions.InvalidStatus as refused:
            expect(what, refused.response.status_code, 401)


async def check_single_chat(server):
    bot = Bot().start()
    await server.connected()
    msg_id = server.say("hello")
    message = await bot.message(server)
    seen = (message.message_id, message.text.content, message.sender_staff_id, message.conversation_type)
    expect("a message", seen, (msg_id, "hello", "manager1", "1"))
    expect("whose robot", message.robot_code, CLIENT_ID)
    expect("the life of its webhook", message.session_webhook_expired_time > time.time() * 1000 + 60_000, True)
    [push] = await server.until("an answer", lambda s: [p for p in s["pushes"] if p["text"] == "hello" and p["acks"]])
    expect("the answer", (push["acks"][0]["code"], json.loads(push["acks"][0]["data"])), (200, {"response": "OK"}))
    expect("what is lost", server.control("lost"), [])
    expect("a text", bot.handler.reply_text("an answer", message), {"errcode": 0, "errmsg": "ok"})
    expect("markdown", bot.handler.reply_markdown("a title", "# more", message)["errcode"], 0)
    shown = [(s["way"], s["chat"], s["format"], s["title"], s["text"]) for s in server.state()["sent"]]
    chat = message.conversation_id
    wanted = [("session", chat, "text", "", "an answer"), ("session", chat, "markdown", "a title", "# more")]
    expect("what the chat shows", shown, wanted)
    server.control("expire-webhooks", {})
    late = bot.handler.reply_text("too late", message)
    expect("a webhook that is too old", (late["errcode"] != 0, len(server.state()["sent"])), (True, 2))


async def check_group_chat(server):
    bot = Bot().start()
    await server.connected()
    server.say("hello all", group="cid-a-group")
    message = await bot.message(server)
    expect("the text after the name", message.text.content, " hello all")
    seen = (message.conversation_type, message.conversation_id, message.is_in_at_list)
    expect("a group", seen, ("2", "cid-a-group", True))
    expect("who is called", message.at_users[0].dingtalk_id, message.chatbot_user_id)
    bot.handler.reply_text("an answer", message)
    expect("who is called in turn", server.state()["sent"][0]["at"], ["manager1"])


async def check_other_kinds(server):
    bot = Bot().start()
    await server.connected()
    code = server.control("file", "bytes of a picture")["downloadCode"]
    picture = {"msgtype": "picture", "text": None, "content": {"downloadCode": code}}
    server.say("a picture", **picture)
    rich = [{"text": "look"}, {"downloadCode": code, "pictureDownloadCode": code, "type": "picture"}]
    server.say("rich text", msgtype="richText", text=None, content={"richText": rich})
    message = await bot.message(server)
    expect("a picture", message.get_image_list(), [code])
    message = await bot.message(server, 2)
    expect("rich text", (message.get_text_list(), message.get_image_list()), (["look"], [code]))
    link = bot.handler.get_image_download_url(code)
    with urllib.request.urlopen(link, timeout=DEADLINE_S) as response:
        expect("the file", response.read(), b"bytes of a picture")
    expect("no such file", bot.handler.get_image_download_url("none"), "")


async def check_pings_and_unknown_topics(server):
    bot = Bot().start()
    await server.connected()
    ping = {"type": "SYSTEM", "topic": "ping", "data": {"opaque": "0d5c-a"}}
    push = await server.push_of(server.control("push", ping)["messageId"])
    expect("a ping", (push["acks"][0]["code"], json.loads(push["acks"][0]["data"])), (200, {"opaque": "0d5c-a"}))
    for topic in ["CONNECTED", "REGISTERED", "KEEPALIVE", "of-another-day"]:
        server.control("push", {"type": "SYSTEM", "topic": topic, "to": 1})
    server.control("set", {"has_number_times": True})
    server.say("after them")
    expect("a message after them", (await bot.message(server)).text.content, "after them")
    expect("connections", len(server.state()["connections"]), 1)


async def check_disconnect(server):
    bot = Bot().start()
    for has_message_id in [True, False]:
        [connection] = await server.connected()
        told = {"connection": connection["id"], "has_message_id": has_message_id, "after_ms": 500}
        server.control("disconnect", told)
        # The SDK closes it, and opens another.
        await server.until("the end of it", lambda s: s["connections"][connection["id"] - 1]["phase"] == "closed")
    await server.connected()
    server.say("to the third")
    await bot.message(server)
    expect("where it went", [p["to"] for p in server.state()["pushes"] if p["text"]], [3])
    expect("what is lost", server.control("lost"), [])


async def check_a_broken_connection_loses_a_message(server):
    bot = Bot().start()
    await server.connected()
    server.control("set", {"connections": [{**c, "is_stalled": True} for c in server.state()["connections"]]})
    server.say("into the void")
    server.control("break", {})
    server.say("to nobody")
    lost = [(p["text"], p["to"], p["is_written"]) for p in server.control("lost")]
    expect("what is lost", lost, [("into the void", 1, False), ("to nobody", None, False)])
    expect("what was seen", bot.messages, [])


async def check_one_of_several(server):
    bots = [Bot().start(), Bot().start()]
    await server.connected(2)
    server.control("pusher", {"user": "manager1", "prefix": "m", "every_ms": 2, "times": 60})
    await server.until("60 answers", lambda s: len([p for p in s["pushes"] if p["acks"]]) == 60)
    seen = [[m.text.content for m in bot.messages] for bot in bots]
    expect("all of them once", sorted(seen[0] + seen[1]), sorted(f"m{n}" for n in range(1, 61)))
    expect("some for each", all(len(texts) > 5 for texts in seen), True)
    expect("what is lost", server.control("lost"), [])


async def check_events(server):
    bot = Bot().start()
    await server.connected()
    server.control("set", {"event_retry_ms": 200})
    event_id = server.control("event", {"kind": "user_add_org", "data": {"userId": ["u1"]}})["eventId"]
    await server.until("it comes again", lambda _: len(bot.events) == 2)
    expect("its id", [event.headers.event_id for event in bot.events], [event_id, event_id])
    expect("its type", bot.events[0].headers.event_type, "user_add_org")
    expect("its data", bot.events[0].data, {"userId": ["u1"]})
    # No third: the second was acknowledged.
    await asyncio.sleep(0.7)
    expect("how often", len(bot.events), 2)


async def check_card_callback(server):
    bot = Bot().start()
    await server.connected()
    data = {"outTrackId": "a-card", "corpId": "ding-corp", "userId": "manager1", "extension": "{}", "content": "{}"}
    push = {"type": "CALLBACK", "topic": CARD_CALLBACK, "data": data}
    push = await server.push_of(server.control("push", push)["messageId"])
    expect("its answer", push["acks"][0]["code"], 200)
    expect("the card", [card.card_instance_id for card in bot.cards], ["a-card"])


async def check_ai_card(server):
    bot = Bot().start()
    await server.connected()
    for count, group in [(1, None), (2, "cid-a-group")]:
        server.say("a card, please", group=group)
        message = await bot.message(server, count)
        card = bot.sdk.AICardReplier(bot.client, message)
        track = card.start("a-template.schema", {"title": "one"})
        for text, append, is_final in [("on", False, False), ("ce", True, False), ("once more", False, True)]:
            card.streaming(track, "content", text, append=append, finished=is_final, failed=False)
        seen = server.state()["cards"][track]
        expect("the texts of a card", seen["versions"], ["on", "once", "once more"])
        expect("its end", (seen["is_final"], seen["is_error"]), (True, False))
        expect("its template", (seen["template"], seen["params"]["title"]), ("a-template.schema", "one"))
        expect("where it is", server.state()["sent"][-1]["chat"], message.conversation_id)
        at_once = card.create_and_deliver_card("a-template.schema", {"title": "two"})
        card.put_card_data(at_once, {"title": "three", "flowStatus": "3"})
        seen = server.state()["cards"][at_once]
        expect("a card that is changed", (seen["params"]["title"], seen["is_final"]), ("three", True))
    statuses = [call["status"] for call in server.state()["calls"] if call["method"].startswith("card/")]
    expect("the answers", statuses, [200] * len(statuses))


async def check_tokens(server):
    bot = Bot()
    first = bot.client.get_access_token()
    expect("a token again", bot.client.get_access_token(), first)
    server.control("expire-tokens", {})
    body = {"robotCode": CLIENT_ID, "openConversationId": "cid", "msgKey": "sampleText", "msgParam": '{"content":"x"}'}
    path = "/v1.0/robot/groupMessages/send"
    expect("a stale token", server.call(path, body, x_acs_dingtalk_access_token=first)[0], 401)
    bot.client.reset_access_token()
    fresh = bot.client.get_access_token()
    expect("a fresh token", server.call(path, body, x_acs_dingtalk_access_token=fresh)[0], 200)


async def check_messages_that_nobody_asked_for(server):
    token = {"x_acs_dingtalk_access_token": Bot().client.get_access_token()}
    single, group = "/v1.0/robot/oToMessages/batchSend", "/v1.0/robot/groupMessages/send"
    text = {"robotCode": CLIENT_ID, "msgKey": "sampleText", "msgParam": '{"content":"x"}'}
    markdown = {**text, "msgKey": "sampleMarkdown", "msgParam": '{"title":"t","text":"# y"}'}
    server.control("set", {"invalid_staff": ["nobody"], "flow_controlled": ["tired"], "unknown_groups": ["gone"]})
    status, answer = server.call(single, {**text, "userIds": ["manager1", "nobody", "tired"]}, **token)
    lists = (answer["invalidStaffIdList"], answer["flowControlledStaffIdList"], bool(answer["processQueryKey"]))
    expect("to three", (status, lists), (200, (["nobody"], ["tired"], True)))
    expect("to a group", server.call(group, {**markdown, "openConversationId": "cid-a-group"}, **token)[0], 200)
    shown = [(s["way"], s["format"], s["text"]) for s in server.state()["sent"]]
    expect("what is shown", shown, [("single", "text", "x"), ("group", "markdown", "# y")])
    table = [
        (single, {**text, "userIds": ["u"] * 21}, "invalidParameter.userIds.overMax"),
        (single, {**text, "userIds": ["u"], "robotCode": "another"}, "invalidParameter.robotCode.auth"),
        (single, {**text, "userIds": ["u"], "msgParam": "{"}, "invalidParameter.msgParam.invalid"),
        (group, {**text, "openConversationId": "gone"}, "invalidParameter.openConversationId.invalid"),
        (group, {**text, "openConversationId": "c", "msgParam": json.dumps({"content": "x" * 15_000})}, "invalidParameter.msgParam.invalid"),
    ]
    for path, body, code in table:
        status, answer = server.call(path, body, **token)
        expect("a refusal", (status, answer["code"]), (400, code))


async def run(name, binary):
    server = Server(binary)
    os.environ["DINGTALK_OPENAPI_ENDPOINT"] = server.url
    try:
        await asyncio.wait_for(globals()[name](server), DEADLINE_S)
        expect("breaches of the protocol", server.state()["complaints"], [])
    finally:
        server.stop()


def main(binary):
    checks = [name for name in globals() if name.startswith("check_")]
    command = [sys.executable, __file__, binary]
    runs = {name: subprocess.Popen([*command, name], stderr=subprocess.PIPE, text=True) for name in checks}
    failed = False
    for name, process in runs.items():
        _, told = process.communicate(timeout=2 * DEADLINE_S)
        if process.returncode != 0:
            failed = True
            print(f"dingtalk test server: {name}: {told.strip().splitlines()[-1] if told else 'failed'}", file=sys.stderr)
    if failed:
        sys.exit(1)
    print(f"dingtalk test server: agrees with dingtalk-stream {version('dingtalk-stream')} in {len(checks)} checks")


if __name__ == "__main__":
    if len(sys.argv) == 2:
        main(sys.argv[1])
    else:
        logging.disable()  # The client logs each answer it cannot read, and here some are meant to be.
        asyncio.run(run(sys.argv[2], sys.argv[1]))
        # The threads of the client never end.
        sys.stderr.flush()
        os._exit(0)
