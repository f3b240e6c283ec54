use super::fixture::{HOSTILE, hostile};
use super::*;

const ADMIN: Viewer<'static> = Viewer { user: "owner", is_admin: true, csrf: "c0ffee" };

fn all_pages() -> Vec<String> {
    let hostile_viewer = Viewer { user: HOSTILE, is_admin: true, csrf: HOSTILE };
    vec![
        status(&hostile(), &hostile_viewer, Some(Told::Refused(HOSTILE))),
        chat(&hostile_viewer, HOSTILE),
        login(HOSTILE, Some(HOSTILE)),
        failure(HOSTILE, HOSTILE),
    ]
}

#[test]
fn no_text_becomes_markup() {
    let regions = live(&hostile())["regions"].as_object().expect("regions").clone();
    let regions = regions.values().map(|markup| markup.as_str().expect("markup").to_owned());
    for page in all_pages().into_iter().chain(regions) {
        assert!(!page.contains("<script>alert"), "a text became an element:\n{page}");
        assert!(!page.contains("\" onload="), "a text left its attribute:\n{page}");
    }
}

/// What the Content-Security-Policy would not let a browser do.
#[test]
fn pages_have_nothing_inline_and_nothing_from_elsewhere() {
    for page in all_pages() {
        let scripts = page.matches("<script").count();
        assert_eq!(page.matches("<script defer src=\"/assets/").count(), scripts, "an inline script:\n{page}");
        for forbidden in ["<style", " style=\"", "javascript:", "src=\"http", "href=\"http", "src=\"//", "href=\"//"] {
            assert!(!page.contains(forbidden), "{forbidden} in\n{page}");
        }
    }
}

#[test]
fn pages_have_what_readers_of_screens_go_by() {
    for page in all_pages() {
        for wanted in ["<html lang=\"en\">", "<main", "<h1", " · hermes</title>", "href=\"#main\"", "name=\"viewport\""]
        {
            assert_eq!(page.matches(wanted).count(), 1, "{wanted} in\n{page}");
        }
    }
}

#[test]
fn every_form_proves_where_it_comes_from() {
    let page = status(&fixture::status(), &ADMIN, None);
    let forms = page.matches("<form").count();
    assert_eq!((forms, page.matches("name=\"csrf\" value=\"c0ffee\"").count()), (3, 3));
    assert_eq!(
        page.matches("<form class=\"out\" method=\"post\"").count() + page.matches("<form method=\"post\"").count(),
        3
    );
}
