use super::super::fixture::{self, failed, restart, update};
use super::*;
use crate::store::HandoffRecord;

const ADMIN: Viewer<'static> = Viewer { user: "owner", is_admin: true, csrf: "c0ffee" };

/// A page as a reader without styles has it: its texts, one a line.
fn words(markup: &str) -> String {
    let mut words = String::new();
    for piece in markup.split('<') {
        let text = piece.split_once('>').map_or("", |(_, text)| text).trim();
        if !text.is_empty() {
            words.push_str(text);
            words.push('\n');
        }
    }
    words
}

fn region(status: &Status, id: &str) -> String {
    words(live(status)["regions"][id].as_str().expect("a region"))
}

#[test]
fn the_page_says_everything_without_scripts() {
    let page = words(&status(&fixture::status(), &ADMIN, None));
    for said in [
        "hermes 1.5.0",
        "degraded",
        "PID 4242, up",
        "generation 3",
        "updated 1.4.0 → 1.5.0, same process (PID 4242), 3 turns carried, 4.3 ms",
        "a send to telegram is in flight",
        "no answer within 30 s",
        "bad gateway (502); tried again",
        "2 waiting to be sent, 1 in flight",
        "turn 17 in",
        "2 KiB so far",
        "run `make test`",
        "failed in preflight: the new image cannot take over (killed by signal 4)",
        "Releases are installed by themselves (02:00-05:00).",
        "in 2 h",
        "looked",
        "Update now",
        "Restart now",
        "53 handoffs since the database was made, 52 of them committed",
    ] {
        assert!(page.contains(said), "{said} is not in\n{page}");
    }
}

/// What the script replaces is on the page under the same id, with the same content.
#[test]
fn regions_are_those_of_the_page() {
    let status = fixture::status();
    let page = super::status(&status, &ADMIN, None);
    let live = live(&status);
    let regions = live["regions"].as_object().expect("regions");
    for (id, markup) in regions {
        let markup = markup.as_str().expect("markup");
        assert!(page.contains(&format!("<div id=\"{id}\" data-region>{markup}</div>")), "{id}");
        for focusable in ["<button", "<a ", "<input", "<details", "tabindex"] {
            assert!(!markup.contains(focusable), "{id} would take the focus away from {focusable}");
        }
    }
    assert_eq!(page.matches(" data-region").count(), regions.len());
    assert_eq!(live["phase"], "serving");
}

#[test]
fn only_admins_are_offered_what_only_they_may() {
    let guest = Viewer { user: "guest", is_admin: false, csrf: "c0ffee" };
    let page = status(&fixture::status(), &guest, None);
    assert!(!page.contains("/api/update") && !page.contains("/api/restart"), "{page}");
}

#[test]
fn a_handoff_under_way_shows_its_phase() {
    let status = Status {
        phase: "drain".into(),
        waiting_for: Some("a send to telegram (3 s, 2 s left)".into()),
        ..fixture::status()
    };
    let page = super::status(&status, &ADMIN, None);
    assert!(page.contains("<div id=\"underway\"><p"), "it is shown");
    assert!(page.contains("<li class=\"is-done\" data-phase=\"preflight\">"));
    assert!(page.contains("<li class=\"is-now\" data-phase=\"drain\">"));
    assert!(page.contains(", waiting for a send to telegram (3 s, 2 s left)"));
    let idle = super::status(&fixture::status(), &ADMIN, None);
    assert!(idle.contains("<div id=\"underway\" hidden>"));
}

#[test]
fn the_last_result_is_told_in_a_sentence() {
    let with = |handoffs| Status { handoffs, ..fixture::status() };
    assert_eq!(region(&with(Vec::new()), "result"), "");
    assert_eq!(
        region(&with(vec![restart(3, 10)]), "result"),
        "restarted 1.4.0, same process (PID 4242), 1 turn carried, 4.3 ms\n"
    );
    let told = region(&with(vec![failed(), update()]), "result");
    assert!(told.starts_with("The update failed: failed in preflight: the new image"), "{told}");
    assert!(told.contains("1.5.0 goes on as before."));
    // The process has ended since: what it did is history.
    assert_eq!(region(&with(vec![HandoffRecord { generation: 9, ..update() }]), "result"), "");
}

#[test]
fn guests_see_how_it_goes_and_nothing_of_others() {
    let mut whole = fixture::status();
    whole.update.held =
        Some(crate::control::proto::HoldStatus { since: fixture::NOW, until: None, by: "Ann".to_owned() });
    let secrets = ["telegram:1001", "web:owner", "make test", "Ann", "security", "/var/lib/hermes", "root"];
    let json = |status: &Status| serde_json::to_string(status).expect("plain data serialises");
    let page = |seen: &Status| {
        let viewer = Viewer { user: "guest", is_admin: false, csrf: "c0ffee" };
        format!("{}{}", words(&status(seen, &viewer, None)), live(seen))
    };
    let (before, seen) = (json(&whole), for_guests(whole.clone()));
    for secret in secrets {
        assert!(before.contains(secret), "{secret}");
        assert!(!json(&seen).contains(secret) && !page(&seen).contains(secret), "{secret}");
    }
    let shown = page(&seen);
    for said in ["hermes 1.5.0", "turn 17", "asks", "committed", "Held"] {
        assert!(shown.contains(said), "{said}");
    }
    assert!(!shown.contains("by ()") && !shown.contains(" in <b></b>"));
}
