//! AES-128-ECB with PKCS#7 padding and MD5, as the CDN sees them. `check.py` holds it against another implementation.

use aes::Aes128;
use aes::cipher::{BlockCipherDecrypt as _, BlockCipherEncrypt as _, KeyInit as _};
use md5::{Digest as _, Md5};

const BLOCK: usize = 16;

/// Encrypts.
pub fn encrypt(key: [u8; 16], plaintext: &[u8]) -> Vec<u8> {
    let cipher = Aes128::new(&key.into());
    let padding = BLOCK - plaintext.len() % BLOCK;
    let mut bytes = plaintext.to_vec();
    bytes.resize(plaintext.len() + padding, u8::try_from(padding).expect("at most 16"));
    for block in bytes.chunks_exact_mut(BLOCK) {
        cipher.encrypt_block(block.try_into().expect("16 bytes"));
    }
    bytes
}

/// Decrypts; none if it is not whole blocks or the padding is wrong.
pub fn decrypt(key: [u8; 16], ciphertext: &[u8]) -> Option<Vec<u8>> {
    if !ciphertext.len().is_multiple_of(BLOCK) {
        return None;
    }
    let cipher = Aes128::new(&key.into());
    let mut bytes = ciphertext.to_vec();
    for block in bytes.chunks_exact_mut(BLOCK) {
        cipher.decrypt_block(block.try_into().expect("16 bytes"));
    }
    let padding = usize::from(*bytes.last()?);
    let kept = bytes.len().checked_sub(padding)?;
    let is_padding = (1..=BLOCK).contains(&padding) && bytes[kept..].iter().all(|&byte| usize::from(byte) == padding);
    is_padding.then(|| {
        bytes.truncate(kept);
        bytes
    })
}

/// The MD5 in hex.
pub fn md5_hex(bytes: &[u8]) -> String {
    hex(&Md5::digest(bytes))
}

/// Lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A key from hex.
pub fn unhex(text: &str) -> Option<[u8; 16]> {
    if text.len() != 32 || !text.is_ascii() {
        return None;
    }
    let mut key = [0; 16];
    for (byte, digits) in key.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(key)
}
