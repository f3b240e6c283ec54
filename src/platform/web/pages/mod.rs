//! What the web platform shows: pages, their assets, metrics and health. Pure functions of
//! [`Status`](crate::control::proto::Status) and of who looks; no I/O.
//!
//! | function | where it is served |
//! |---|---|
//! | [`status()`] | `/`: complete without scripts |
//! | [`live`] | data of the event `status` of `/events`: the regions of that page, and what else changes |
//! | [`chat()`] | `/chat`: needs its script |
//! | [`login`], [`failure`] | `/login`, and whatever went wrong |
//! | [`for_guests`] | what of the status is for all who may talk |
//! | [`asset`] | `/assets/NAME?v=HASH` |
//! | [`metrics()`] | `/metrics` |
//! | [`health_detailed`], [`readiness`], [`ALIVE`] | `/health/detailed`, `/readyz`, `/healthz` |
//!
//! A page is split into *regions*, elements with an id. The script of the page puts what [`live`] says in their
//! place when it changes; whatever can have the focus stands outside of them, so that nothing is taken away from whoever
//! reads or types.
//!
//! **Invariants**
//! - No text gets into a page but by way of `maud`, which escapes it; there is no `PreEscaped` here.
//! - No inline script or style, so that the Content-Security-Policy can be [`CONTENT_SECURITY_POLICY`].
//! - Every form that changes something is a POST with the viewer's CSRF token in the field [`CSRF_FIELD`].

mod assets;
mod chat;
mod handoffs;
mod health;
mod metrics;
mod overview;
mod status;
mod text;

use maud::{DOCTYPE, Markup, html};

pub use assets::{Asset, asset};
pub use chat::chat;
pub use health::{ALIVE, health_detailed, readiness};
pub use metrics::{CONTENT_TYPE as METRICS_CONTENT_TYPE, metrics};
pub use status::{for_guests, live, status};

/// What pages need and no more: their own scripts, styles, pictures and events.
pub const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
                                           connect-src 'self'; form-action 'self'; base-uri 'none'; \
                                           frame-ancestors 'none'";

/// The field of every form that has the CSRF token.
pub const CSRF_FIELD: &str = "csrf";

/// Who looks at a page.
#[derive(Clone, Copy, Debug)]
pub struct Viewer<'a> {
    /// The name of the user.
    pub user: &'a str,
    /// Whether they may use admin commands.
    pub is_admin: bool,
    /// What their forms prove themselves by.
    pub csrf: &'a str,
}

/// What is told at the top of a page, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told<'a> {
    /// It goes as asked.
    Done(&'a str),
    /// It does not, and why.
    Refused(&'a str),
}

impl Told<'_> {
    fn show(self) -> Markup {
        let (class, text) = match self {
            Self::Done(text) => ("told", text),
            Self::Refused(text) => ("told is-bad", text),
        };
        html! { p class=(class) role="status" { (text) } }
    }
}

/// The part of the site that a page belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Status,
    Chat,
}

/// The frame of every page. `scripts` are names of assets.
fn page(title: &str, place: Option<Place>, viewer: Option<&Viewer<'_>>, scripts: &[&str], main: &Markup) -> String {
    let link = |to: Place, href: &str, label: &str| {
        let current = (place == Some(to)).then_some("page");
        html! { li { a href=(href) aria-current=[current] { (label) } } }
    };
    let markup = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                title { (title) " · hermes" }
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                link rel="icon" type="image/svg+xml" href=(assets::url("icon.svg"));
                link rel="stylesheet" href=(assets::url("app.css"));
                @for script in scripts { script defer src=(assets::url(script)) {} }
            }
            body class=[(place == Some(Place::Chat)).then_some("is-chat")] {
                a .skip href="#main" { "Skip to content" }
                header .top {
                    a .brand href="/" { span .wing aria-hidden="true" {} "hermes" }
                    @if let Some(viewer) = viewer {
                        nav aria-label="Pages" { ul { (link(Place::Status, "/", "Status")) (link(Place::Chat, "/chat", "Chat")) } }
                        form .out method="post" action="/logout" {
                            input type="hidden" name=(CSRF_FIELD) value=(viewer.csrf);
                            button .quiet type="submit" { "Sign out" span .who { " " (viewer.user) } }
                        }
                    }
                }
                main #main tabindex="-1" { (main) }
            }
        }
    };
    markup.into_string()
}

/// The page that asks for the token; works without scripts. `next` is the path to go on to.
pub fn login(next: &str, problem: Option<&str>) -> String {
    let main = html! {
        section .card.login aria-labelledby="login" {
            h1 #login { "Sign in" }
            @if let Some(problem) = problem { (Told::Refused(problem).show()) }
            form method="post" action="/login" {
                input type="hidden" name="next" value=(next);
                // Password managers keep a token by the name of somebody.
                input .hidden type="text" name="user" value="hermes" autocomplete="username" tabindex="-1"
                    aria-hidden="true" readonly;
                label for="token" { "Token" }
                input #token type="password" name="token" autocomplete="current-password" required autofocus
                    aria-describedby="token-help";
                p #token-help .dim { "It is in " code { "gateway.toml" } ", or in the file " code { "web-token" } " of the gateway's home." }
                button .primary type="submit" { "Sign in" }
            }
        }
    };
    page("Sign in", None, None, &[], &main)
}

/// A page that says what went wrong and what to do.
pub fn failure(title: &str, text: &str) -> String {
    let main = html! {
        section .card.login {
            h1 { (title) }
            p { (text) }
            p { a href="/" { "To the status page" } }
        }
    };
    page(title, None, None, &[], &main)
}

#[cfg(test)]
#[path = "tests/fixture.rs"]
mod fixture;

#[cfg(test)]
#[path = "tests/pages.rs"]
mod tests;
