//! The pages for everybody: on a phone, in the dark, by keyboard, by ear.

use serde_json::json;

use super::scripted::{Scripted, message_of};
use crate::support::browser::{Browser, key};

const PAGES: [&str; 3] = ["/", "/chat", "/login"];

/// Texts whose contrast with their ground is below 4.5 (WCAG 2.2, 1.4.3 AA), with the ratio.
const FAINT: &str = r"
    const channel = (v) => (v /= 255, v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    const luminance = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
    const parse = (color) => { const [r, g, b, a = 1] = color.match(/[\d.]+/g).map(Number); return [r, g, b, a]; };
    const ground = (element) => {
        const segment = element.closest('.seg')?.querySelector('rect');
        if (segment) return parse(getComputedStyle(segment).fill);
        for (let at = element; at; at = at.parentElement) {
            const color = parse(getComputedStyle(at).backgroundColor);
            if (color[3] === 1) return color;
        }
        return [255, 255, 255];
    };
    const faint = [];
    let looked = 0;
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) {
        const element = texts.currentNode.parentElement;
        const box = element.getBoundingClientRect();
        if (!texts.currentNode.data.trim() || !element.checkVisibility() || box.width <= 1) continue;
        const style = getComputedStyle(element);
        const color = parse(element instanceof SVGElement ? style.fill : style.color);
        const [more, less] = [luminance(color), luminance(ground(element))].sort((a, b) => b - a);
        const contrast = (more + 0.05) / (less + 0.05);
        looked += 1;
        if (contrast < 4.5) faint.push(`${contrast.toFixed(2)}: ${texts.currentNode.data.trim()}`);
    }
    return looked > 5 ? faint : ['there is hardly any text'];";

#[tokio::test]
async fn pages_fit_a_phone_and_are_legible_in_light_and_dark() {
    let (server, browser) = tokio::join!(Scripted::start(), Browser::start());
    for page in PAGES {
        let mut pictures = Vec::new();
        for scheme in ["light", "dark"] {
            browser.colors(scheme).await;
            browser.resize(320, 640).await;
            browser.go(&server.url(page)).await;
            if page == "/chat" {
                browser.until("it listens", "document.getElementById('messages').ariaBusy === 'false'").await;
                server.tell("message", &message_of(1, "user", &"long".repeat(99), true));
                let code = format!("Text `{}` and\n\n```\n{}\n```\n\n> quoted", "code".repeat(40), "wide ".repeat(60));
                server.answer(2, &code, true);
                server.tell("message", &message_of(3, "gateway", "said", true));
                browser.until("it is shown", "document.querySelector('.from-gateway')").await;
            }
            let width = browser.eval("return document.documentElement.scrollWidth").await;
            assert_eq!(width, 320, "{page} goes beyond the edge");
            browser.resize(1100, 900).await;
            assert_eq!(browser.eval(FAINT).await, json!([]), "{page} in {scheme}");
            pictures.push(browser.picture().await);
        }
        assert_ne!(pictures[0], pictures[1], "{page} looks the same in both");
    }
}

#[tokio::test]
async fn everything_is_reached_by_keyboard_and_seen_to_be() {
    let (server, browser) = tokio::join!(Scripted::start(), Browser::start());
    browser.go(&server.url("/")).await;
    let focus = "const at = document.activeElement; const style = getComputedStyle(at);
        return { name: (at.innerText || at.name || at.id).trim(), outline: style.outlineStyle, tag: at.localName };";
    let mut reached = Vec::new();
    loop {
        browser.press(key::TAB).await;
        let at = browser.eval(focus).await;
        if at["tag"] == "body" {
            break;
        }
        assert_eq!(at["outline"], "solid", "the focus is not seen: {at}");
        reached.push(at["name"].as_str().expect("a name").to_owned());
        assert!(reached.len() < 30, "the focus does not leave the page: {reached:?}");
    }
    let wanted =
        ["Skip to content", "hermes", "Status", "Chat", "Sign out owner", "Update", "Restart", "The same as a table"];
    assert_eq!(reached, wanted);
    // An update without a mouse: open it, go on to its button, press it.
    browser.eval("document.querySelector('.actions summary').focus()").await;
    browser.press(key::ENTER).await;
    browser.press(key::TAB).await;
    browser.press("1.6.0").await;
    browser.press(key::TAB).await;
    browser.press(key::ENTER).await;
    browser.until("it is asked for", "document.getElementById('asked').innerText.startsWith('Asked for.')").await;
    browser.until("the focus is back", "document.activeElement.localName === 'summary'").await;
    assert_eq!(server.posts()[0]["version"], "1.6.0");
    assert!(server.posts()[0]["id"].is_string(), "{:?}", server.posts());
}

#[tokio::test]
async fn a_screen_reader_finds_its_way() {
    let (server, browser) = tokio::join!(Scripted::start(), Browser::start());
    let spoken = |page: &'static str| {
        let (browser, url) = (&browser, server.url(page));
        async move {
            browser.go(&url).await;
            browser.spoken().await
        }
    };
    let has = |nodes: &[(String, String)], role: &str, name: &str| {
        assert!(
            nodes.iter().any(|(is, named)| is == role && named.starts_with(name)),
            "no {role} {name:?} in {nodes:?}"
        );
    };
    let nodes = spoken("/").await;
    for (role, name) in [
        ("banner", ""),
        ("main", ""),
        ("navigation", "Pages"),
        ("heading", "hermes 1.5.0"),
        ("heading", "Handoffs"),
        ("region", "Platforms"),
        ("region", "Agents"),
        ("link", "Skip to content"),
        ("button", "Sign out"),
        ("image", "stage 1800 ms, preflight 4.9 ms"),
    ] {
        has(&nodes, role, name);
    }
    let nodes = spoken("/chat").await;
    for (role, name) in [("heading", "Chat"), ("textbox", "Message"), ("button", "Send"), ("region", "Messages")] {
        has(&nodes, role, name);
    }
    let nodes = spoken("/login").await;
    for (role, name) in [("heading", "Sign in"), ("textbox", "Token"), ("button", "Sign in"), ("status", "")] {
        has(&nodes, role, name);
    }
    for page in PAGES {
        let nodes = spoken(page).await;
        for role in ["button", "link", "textbox", "image"] {
            assert!(!nodes.iter().any(|(is, name)| is == role && name.is_empty()), "a {role} without a name on {page}");
        }
    }
    assert_eq!(browser.console().await, Vec::<String>::new());
}
