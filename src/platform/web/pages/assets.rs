//! Scripts, styles and pictures, built in.
//!
//! Pages name them with their hash, so that a browser keeps them for good and never has those of another version. A page
//! that was loaded before an update may still ask for the ones it knew; it gets those that there are, not to be kept.

use std::sync::LazyLock;

use sha2::{Digest, Sha256};

/// A file that pages refer to.
#[derive(Debug)]
pub struct Asset {
    /// Its media type.
    pub content_type: &'static str,
    /// Its bytes.
    pub content: &'static [u8],
    /// The beginning of its digest, in hex. In quotes it is the entity tag.
    pub hash: String,
}

impl Asset {
    /// The header `Cache-Control`, for a request whose query has `v=` with this.
    pub fn cache_control(&self, version: Option<&str>) -> &'static str {
        if version == Some(self.hash.as_str()) { "public, max-age=31536000, immutable" } else { "no-cache" }
    }
}

static ASSETS: LazyLock<Vec<(&'static str, Asset)>> = LazyLock::new(|| {
    let asset = |name, content_type, content: &'static str| {
        let hash = crate::hex::encode(&Sha256::digest(content)[..8]);
        (name, Asset { content_type, content: content.as_bytes(), hash })
    };
    const SCRIPT: &str = "text/javascript; charset=utf-8";
    vec![
        asset("app.css", "text/css; charset=utf-8", include_str!("assets/app.css")),
        asset("chat.js", SCRIPT, include_str!("assets/chat.js")),
        asset("icon.svg", "image/svg+xml", include_str!("assets/icon.svg")),
        asset("live.js", SCRIPT, include_str!("assets/live.js")),
        asset("markdown.js", SCRIPT, include_str!("assets/markdown.js")),
        asset("status.js", SCRIPT, include_str!("assets/status.js")),
    ]
});

/// The asset of this name.
pub fn asset(name: &str) -> Option<&'static Asset> {
    ASSETS.iter().find(|(known, _)| *known == name).map(|(_, asset)| asset)
}

/// Where a page finds an asset.
///
/// # Panics
/// If there is none of this name: pages name their own.
pub(super) fn url(name: &str) -> String {
    let asset = asset(name).expect("pages name assets that are built in");
    format!("/assets/{name}?v={}", asset.hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_asset_is_kept_under_its_hash_alone() {
        let css = asset("app.css").expect("built in");
        assert_eq!(url("app.css"), format!("/assets/app.css?v={}", css.hash));
        assert_eq!(css.cache_control(Some(&css.hash)), "public, max-age=31536000, immutable");
        assert_eq!([css.cache_control(None), css.cache_control(Some("0"))], ["no-cache"; 2]);
        assert!(asset("../mod.rs").is_none());
    }

    /// What the Content-Security-Policy forbids would only be seen in a browser.
    #[test]
    fn scripts_make_no_markup_of_text_that_people_or_agents_wrote() {
        for name in ["chat.js", "live.js", "markdown.js"] {
            let script = std::str::from_utf8(asset(name).expect("built in").content).expect("text");
            for sink in
                ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "DOMParser", "setHTML"]
            {
                assert!(!script.contains(sink), "{name} uses {sink}");
            }
        }
    }
}
