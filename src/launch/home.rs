//! Where the home is: as the gateway finds it, see `config::home`.

use std::ffi::OsString;
use std::path::PathBuf;

/// `HERMES_HOME`, else `.hermes` in the user's home directory; nothing if that is no absolute path.
pub fn home(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let set = |name| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("HERMES_HOME").or_else(|| Some(set("HOME")?.join(".hermes"))).filter(|home| home.is_absolute())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_home_is_that_of_the_gateway() {
        let find = |hermes_home: &str, user_home: &str| {
            home(|name| Some(OsString::from(if name == "HOME" { user_home } else { hermes_home })))
        };
        assert_eq!(find("/srv/hermes", "/u/kim"), Some(PathBuf::from("/srv/hermes")));
        assert_eq!(find("", "/u/kim"), Some(PathBuf::from("/u/kim/.hermes")));
        assert_eq!(find("relative", "/u/kim"), None);
        assert_eq!(find("", ""), None);
        assert_eq!(home(|_| None), None);
    }
}
