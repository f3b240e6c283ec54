//! Bytes as text: digests, and secrets made of random bytes.

use std::fmt::Write as _;

/// Two lower-case hexadecimal digits for each byte.
pub fn encode(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string succeeds");
        text
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn each_byte_is_two_digits() {
        assert_eq!(super::encode(&[0x00, 0x0a, 0xff]), "000aff");
        assert_eq!(super::encode(&[]), "");
    }
}
