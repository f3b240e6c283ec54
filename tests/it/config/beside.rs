//! What a command beside the gateway makes of secrets that only the gateway's unit has; and values that were taken silently.

use std::path::Path;

use hermes_gateway::config::{Config, Reader};
use insta::assert_snapshot;

use super::{environment, refused};

#[test]
fn what_only_the_unit_has_is_no_mistake_for_a_command_beside_the_gateway() {
    let read = |text: &str| Config::from_text(text, Path::new("gateway.toml"), &environment(), Reader::Other);
    for keys in ["token_credential = 'telegram'", "token_env = 'NO_TOKEN'"] {
        let config = read(&format!("[platforms.telegram]\n{keys}")).expect("accepted");
        assert!(!config.is_known("telegram") && !config.telegram.expect("there").token.is_known(), "{keys}");
    }
    let web = "[platforms.web]\ntoken_env = 'NO_TOKEN'\nguest_token_env = 'NO_OTHER'";
    assert!(!read(web).expect("two that are not known are not the same").is_known("web"));
    assert!(read("[platforms.telegram]\ntoken = '1:a'").expect("accepted").is_known("telegram"));
    for keys in ["token_file = 'missing'", "token_credential = '../x'", "token = ''"] {
        read(&format!("[platforms.telegram]\n{keys}")).expect_err("a mistake for everybody");
    }
}

#[test]
fn a_handoff_timeout_of_less_than_a_second_is_refused() {
    assert_snapshot!(refused("[gateway]\nhandoff_timeout = '0s'"), @r#"gateway.toml:2:19: 'handoff_timeout' is less than 1s; for example handoff_timeout = "30s""#);
}

#[test]
fn a_verifying_key_must_be_one() {
    // 32 bytes, and no point of the curve: every update would fail with it.
    let no_point = format!("[update]\nverifying_keys = ['Ag{}=']", "A".repeat(41));
    assert!(refused(&no_point).contains("this is not an ed25519 public key"));
}
