//! The chat page. What is said comes by events, and its script shows it; nothing of it stands in the page itself.

use maud::html;

use super::{Place, Viewer, page};

/// The chat page of `chat`.
pub fn chat(viewer: &Viewer<'_>, chat: &str) -> String {
    let main = html! {
        h1 .hidden { "Chat" }
        noscript { p .told.is-bad { "The chat needs JavaScript. The " a href="/" { "status page" } " does not." } }
        section .log aria-label="Messages" {
            button #earlier .quiet type="button" hidden { "Earlier messages" }
            p #welcome .dim hidden { "Nothing has been said here. What you write goes to the agent; " code { "/help" } " tells of the commands." }
            ol #messages aria-busy="true" {}
            p #typing .typing hidden { span .dots aria-hidden="true" { i {} i {} i {} } " The agent works" }
        }
        p #announce .hidden aria-live="polite" {}
        p #connection .connection role="status" hidden { "Not connected. What you write is sent once the gateway is there again." }
        button #down .down type="button" hidden { "↓ New below" }
        form #composer .composer data-chat=(chat) data-csrf=(viewer.csrf) {
            label .hidden for="text" { "Message" }
            textarea #text rows="1" maxlength="16000" placeholder="Write to the agent" autofocus enterkeyhint="send"
                aria-describedby="keys" {}
            button .primary type="submit" { "Send" }
            p #keys .hidden { "Enter sends, Shift and Enter begins a new line." }
        }
    };
    page("Chat", Some(Place::Chat), Some(viewer), &["live.js", "markdown.js", "chat.js"], &main)
}
