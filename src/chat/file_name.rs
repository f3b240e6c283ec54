//! Names of files, which people and agents choose.

/// The longest name, in bytes: with a number before it and a suffix behind, it fits into the 255 bytes of a file name.
pub const BYTES_MAX: usize = 120;
/// The longest extension that is kept when a name is shortened, in bytes, with its dot.
const EXTENSION_BYTES_MAX: usize = 16;

/// The name, with its extension, in at most [`BYTES_MAX`] bytes.
pub fn shortened(name: &str) -> String {
    if name.len() <= BYTES_MAX {
        return name.to_owned();
    }
    let dot = name.rfind('.').filter(|dot| name.len() - dot <= EXTENSION_BYTES_MAX);
    let extension = dot.map_or("", |dot| &name[dot..]);
    let stem = &name[..name.floor_char_boundary(BYTES_MAX - extension.len())];
    format!("{}{extension}", stem.trim_end())
}
