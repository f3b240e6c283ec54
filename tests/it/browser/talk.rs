//! What the chat page does with what it is told and what is written, against a scripted server.

use axum::http::StatusCode;
use serde_json::json;

use super::scripted::{Scripted, message_of};
use crate::support::browser::{Browser, key};

async fn open_chat() -> (Scripted, Browser) {
    let (server, browser) = tokio::join!(Scripted::start(), Browser::start());
    browser.go(&server.url("/chat")).await;
    browser.until("it listens", "document.getElementById('messages').ariaBusy === 'false'").await;
    (server, browser)
}

/// What would be markup, an address that runs, or an address of elsewhere.
const HOSTILE: &str = "<script>window.broken = 1</script> <img src=x onerror='window.broken = 1'>\n\n\
    [a](javascript:window.broken=1) [b](  JaVaScRiPt:window.broken=1) [c](data:text/html,<script>window.broken=1</script>) \
    ![d](https://example.org/pixel.png) <javascript:window.broken=1> [e](\u{1}javascript:window.broken=1)\n\n\
    ```<b onclick=x>\n</code></pre><script>window.broken = 1</script>\n```\n\n\
    | <i>a</i> | b |\n|---|---|\n| <script>window.broken=1</script> | `<b>` |\n\n> - <svg onload=window.broken=1>";

#[tokio::test]
async fn what_is_said_never_becomes_markup_and_fetches_nothing() {
    let (server, browser) = open_chat().await;
    let _before = browser.requests().await;
    for (number, from) in [(1, "user"), (2, "agent"), (3, "gateway")] {
        let mut message = message_of(number, from, HOSTILE, true);
        message["choices"] = json!([{"label": HOSTILE, "command": "/approve"}]);
        message["file"] = json!({"name": HOSTILE, "mime": HOSTILE, "bytes": 1, "url": "javascript:window.broken=1"});
        server.tell("message", &message);
    }
    server.tell("typing", &json!({}));
    browser.until("all is shown", "document.querySelectorAll('.message').length === 3").await;
    let made = "return [...document.querySelectorAll('#messages *, .typing *')].map((e) => e.localName)";
    let made = browser.eval(made).await;
    let known = [
        "li",
        "h2",
        "time",
        "div",
        "p",
        "a",
        "pre",
        "code",
        "blockquote",
        "ul",
        "button",
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "span",
        "i",
    ];
    for element in made.as_array().expect("elements") {
        let element = element.as_str().expect("a name");
        assert!(known.contains(&element), "a text made an element {element}");
    }
    let addresses = browser.eval("return [...document.querySelectorAll('#messages a')].map((a) => a.href)").await;
    for address in addresses.as_array().expect("addresses") {
        let address = address.as_str().expect("an address");
        assert!(address.starts_with("https://example.org/") || address.starts_with(&server.url("/")), "{address}");
    }
    assert_eq!(browser.eval("return window.broken ?? null").await, json!(null));
    assert_eq!(browser.requests().await, Vec::<String>::new());
    assert_eq!(browser.console().await, Vec::<String>::new());
}

#[tokio::test]
async fn markdown_is_shown_and_grows_in_place() {
    let (server, browser) = open_chat().await;
    server.answer(1, "", false);
    browser.until("the answer begins", "document.querySelector('.from-agent')").await;
    let observe = "window.node = document.querySelector('.from-agent'); window.removed = 0;
        new MutationObserver((all) => all.forEach((m) => { removed += [...m.removedNodes].filter((n) => n.localName === 'p').length; }))
            .observe(node, { childList: true, subtree: true });";
    browser.eval(observe).await;
    let text = "# Plan\n\nFirst *this*, then **that** 😀 and `code`.\n\n1. one\n2. two\n   - deep\n\n```rust\nlet a = 1;\n```\n\n\
                | a | b |\n|---|---|\n| 1 | 2 |\n\n[link](https://example.org/a_(b)) https://example.com/x.\n";
    let units: Vec<u16> = text.encode_utf16().collect();
    let mut at = 0;
    for piece in text.chars().collect::<Vec<_>>().chunks(7) {
        let piece: String = piece.iter().collect();
        let length = piece.encode_utf16().count();
        let is_final = at + length == units.len();
        server.tell("text", &json!({"number": 1, "at": at, "text": piece, "final": is_final}));
        at += length;
    }
    browser
        .until("it is whole", "!document.querySelector('.is-growing') && document.querySelector('.from-agent table')")
        .await;
    let shown = browser.eval("return document.querySelector('.from-agent .body').innerHTML").await;
    insta::assert_snapshot!(shown.as_str().expect("markup"), @r#"<h3>Plan</h3><p>First <em>this</em>, then <strong>that</strong> 😀 and <code>code</code>.</p><ol><li>one</li><li>two<ul><li>deep</li></ul></li></ol><pre tabindex="0"><code>let a = 1;</code></pre><div class="scroll" tabindex="0"><table><thead><tr><th>a</th><th>b</th></tr></thead><tbody><tr><td>1</td><td>2</td></tr></tbody></table></div><p><a href="https://example.org/a_(b)" rel="noopener noreferrer nofollow" target="_blank">link</a> <a href="https://example.com/x" rel="noopener noreferrer nofollow" target="_blank">https://example.com/x</a>.</p>"#);
    assert_eq!(browser.eval("return node.isConnected").await, true, "the answer is where it was");
    let read =
        browser.eval("return [...document.querySelectorAll('#announce span')].map((s) => s.textContent.trim())").await;
    let read = read.as_array().expect("what was read aloud");
    assert_eq!(read.len(), 6, "each block once: {read:?}");
    assert_eq!(browser.console().await, Vec::<String>::new());
}

#[tokio::test]
async fn what_is_written_is_sent_until_it_is_taken_and_shown_once() {
    let (server, browser) = open_chat().await;
    server.refuse_posts(Some(StatusCode::SERVICE_UNAVAILABLE));
    browser.press("first").await;
    browser.press_with(key::SHIFT, key::ENTER).await;
    browser.press("second").await;
    browser.press(key::ENTER).await;
    browser
        .until("it is marked", "document.querySelector('.is-unsent .state')?.innerText === 'Not sent yet: no room'")
        .await;
    // A proxy answers for a gateway that is being replaced.
    for (posts, status) in
        [(3, StatusCode::BAD_GATEWAY), (4, StatusCode::GATEWAY_TIMEOUT), (5, StatusCode::REQUEST_TIMEOUT)]
    {
        while server.posts().len() < posts {
            browser.until("the page is there", "document.querySelector('.is-unsent:not(.is-refused)')").await;
        }
        server.refuse_posts(Some(status));
    }
    while server.posts().len() < 6 {
        browser.until("the page is there", "document.querySelector('.is-unsent:not(.is-refused)')").await;
    }
    server.refuse_posts(None);
    browser.until("it is sent", "!document.querySelector('.is-unsent')").await;
    let posts = server.posts();
    assert!(posts.iter().all(|post| *post == posts[0]), "the same under the same id: {posts:?}");
    assert_eq!(posts[0]["text"], "first\nsecond");
    let mut told = message_of(9, "user", "first\nsecond", true);
    told["id"] = posts[0]["id"].clone();
    server.tell("message", &told);
    server.answer(10, "heard", true);
    browser.until("the answer is there", "document.querySelector('.from-agent')").await;
    let texts = browser.eval("return [...document.querySelectorAll('.message .body')].map((b) => b.textContent)").await;
    assert_eq!(texts, json!(["first\nsecond", "heard"]));
    // What is refused for good is said, and not tried again.
    server.refuse_posts(Some(StatusCode::BAD_REQUEST));
    browser.press(&format!("third{}", key::ENTER)).await;
    browser
        .until("it says why", "document.querySelector('.is-refused .state')?.innerText === 'Not sent: no room'")
        .await;
}

#[tokio::test]
async fn buttons_answer_once() {
    let (server, browser) = open_chat().await;
    let mut asked = message_of(1, "gateway", "May I?", true);
    asked["choices"] = json!([{"label": "Allow", "command": "/approve 1.1"}, {"label": "Deny", "command": "/deny 1"}]);
    server.tell("message", &asked);
    browser.until("the buttons are there", "document.querySelectorAll('.choices button').length === 2").await;
    browser.click(".choices button").await;
    browser
        .until(
            "it is said",
            "!document.querySelector('.is-unsent') && document.querySelectorAll('.from-user').length === 1",
        )
        .await;
    assert_eq!(server.posts()[0]["text"], "/approve 1.1");
    assert_eq!(browser.eval("return document.querySelectorAll('.choices button:disabled').length").await, 2);
}

/// Notes every moment at which the page says that it is not connected.
const WATCH_BANNER: &str = "window.banners = 0; new MutationObserver(() => {
    if (!document.getElementById('connection').hidden) banners += 1; }).observe(document.getElementById('connection'), { attributes: true });";

#[tokio::test]
async fn a_short_break_is_nobodys_business_and_a_long_one_is_told() {
    let (server, browser) = open_chat().await;
    browser.eval(WATCH_BANNER).await;
    server.cut(false);
    while server.listeners() == 0 {
        browser.until("the page is there", "true").await;
    }
    server.answer(1, "still here", true);
    browser.until("it goes on", "document.querySelector('.from-agent')").await;
    assert_eq!(browser.eval("return banners").await, 0);
    server.cut(true);
    browser.until("it says so", "banners > 0").await;
    server.heal();
    browser.until("it is over", "document.getElementById('connection').hidden").await;
    server.answer(2, "again", true);
    browser.until("it goes on", "document.querySelectorAll('.from-agent').length === 2").await;
}

#[tokio::test]
async fn whoever_reads_back_stays_there_and_whoever_is_at_the_end_follows() {
    let (server, browser) = open_chat().await;
    let long = "A line of an answer.\n\n".repeat(60);
    server.answer(1, &long, true);
    let at_end = "document.scrollingElement.scrollTop + innerHeight > document.scrollingElement.scrollHeight - 3";
    browser.until("it is at the end", &format!("document.querySelector('.from-agent') && {at_end}")).await;
    browser.eval("document.scrollingElement.scrollTop = 200").await;
    server.answer(2, &long, true);
    browser.until("it tells of more", "!document.getElementById('down').hidden").await;
    assert_eq!(browser.eval("return document.scrollingElement.scrollTop").await, 200);
    browser.click("#down").await;
    browser.until("it is at the end again", &format!("document.getElementById('down').hidden && {at_end}")).await;
}

#[tokio::test]
async fn another_image_is_told_in_a_line() {
    let (server, browser) = open_chat().await;
    let image = |version: &str, generation: u64, pid: u32| json!({"version": version, "generation": generation, "pid": pid, "phase": "serving", "regions": {}});
    for told in [image("1.4.0", 1, 7), image("1.5.0", 2, 7), image("1.5.0", 2, 7), image("1.5.0", 0, 8)] {
        server.tell("status", &told);
    }
    browser.until("both are told", "document.querySelectorAll('.note').length === 2").await;
    let notes = browser.eval("return [...document.querySelectorAll('.note')].map((n) => n.innerText)").await;
    let wanted =
        ["updated 1.4.0 → 1.5.0, same process, while you read", "restarted 1.5.0, a new process, while you read"];
    assert_eq!(notes, json!(wanted));
}

#[tokio::test]
async fn the_status_page_is_told_what_comes_of_what_it_asks_for() {
    let (server, browser) = tokio::join!(Scripted::start(), Browser::start());
    browser.go(&server.url("/")).await;
    while server.listeners() == 0 {
        browser.until("the page is there", "true").await;
    }
    let hidden = "document.getElementById('underway').hidden";
    let says = |text: &str| format!("document.getElementById('asked').innerText === '{text}'");
    let step = |phase: &str, message: &str| server.tell("progress", &json!({"phase": phase, "message": message}));
    browser.click(".actions summary").await;
    // A proxy answers for a gateway that is being replaced.
    server.refuse_posts(Some(StatusCode::BAD_GATEWAY));
    browser.click("form[action='/api/update'] button").await;
    browser.until("it says why", &says("Not asked for yet: no room")).await;
    server.refuse_posts(None);
    browser.until("it is asked for", &says("Asked for. What comes of it stands here, and in the chat.")).await;
    let posts = server.posts();
    assert!(posts.iter().all(|post| *post == posts[0]), "the same under the same id: {posts:?}");
    step("stage", "Looking for the release");
    browser.until("it is under way", &format!("!{hidden}")).await;
    step("refused", "Not now: another page asked");
    step("done", "1.5.0 is the newest release.");
    browser.until("it is over", &format!("{hidden} && {}", says("1.5.0 is the newest release."))).await;
    browser.click(".actions summary").await;
    browser.click("form[action='/api/update'] button").await;
    browser.until("it is asked for", &says("Asked for. What comes of it stands here, and in the chat.")).await;
    step("refused", "Not now: update");
    browser.until("it is refused", &says("Not now: update")).await;
    assert_eq!(browser.eval(&format!("return {hidden}")).await, true);
}

#[tokio::test]
async fn whose_session_is_over_is_led_to_the_login() {
    for path in ["/", "/chat"] {
        let (server, browser) = tokio::join!(Scripted::start(), Browser::start());
        browser.go(&server.url(path)).await;
        while server.listeners() == 0 {
            browser.until("the page is there", "true").await;
        }
        server.end_session();
        browser.until("it is led away", "location.pathname === '/login'").await;
        assert_eq!(browser.eval("return new URLSearchParams(location.search).get('next')").await, json!(path));
    }
}
