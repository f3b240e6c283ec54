//! Files: encrypted with AES-128-ECB and PKCS#7 padding, on a CDN of their own.
//!
//! **Invariants**
//! - A file goes to, and comes from, the hosts of `base_url` and `cdn_url` alone, whatever an answer or a message says.
//! - A file is at most 25 MiB, so it is held in memory.
//! - Keys are in no error, no log and no `Debug` output.

use std::fmt;
use std::time::Duration;

use aes::Aes128;
use aes::cipher::{BlockCipherDecrypt as _, BlockCipherEncrypt as _, KeyInit as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest as _, Md5};
use reqwest::Url;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::api::{Api, below, body, within};
use super::error::WeixinError;
use crate::hex;
use crate::sys::random;

/// The largest file, in bytes of plaintext.
pub const FILE_BYTES_MAX: usize = 25 << 20;
/// The size of a key and of a block, in bytes.
const BLOCK: usize = 16;
/// How long a file may take in one direction.
const TRANSFER_DEADLINE: Duration = Duration::from_secs(120);
/// How often an upload is tried.
const TRIES: u32 = 3;

/// A key of one file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Key([u8; BLOCK]);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[key]")
    }
}

impl Key {
    /// A new one.
    pub fn random() -> Self {
        Self(random::some())
    }

    /// Takes over 16 bytes.
    pub fn new(bytes: [u8; BLOCK]) -> Self {
        Self(bytes)
    }

    /// From 32 hex digits.
    pub fn from_hex(text: &str) -> Option<Self> {
        if text.len() != 2 * BLOCK || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let mut key = [0; BLOCK];
        for (at, byte) in key.iter_mut().enumerate() {
            *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
        }
        Some(Self(key))
    }

    /// From `aes_key`: the base64 of 16 bytes or of 32 hex digits.
    pub fn from_base64(text: &str) -> Option<Self> {
        let bytes = STANDARD.decode(text).ok()?;
        match <[u8; BLOCK]>::try_from(bytes.as_slice()) {
            Ok(key) => Some(Self(key)),
            Err(_) => Self::from_hex(std::str::from_utf8(&bytes).ok()?),
        }
    }

    /// In hex.
    pub fn hex(&self) -> String {
        hex::encode(&self.0)
    }

    /// Encrypts; the result is 1 to 16 bytes longer and of whole blocks.
    pub fn encrypt(&self, plaintext: &[u8]) -> Vec<u8> {
        let padding = BLOCK - plaintext.len() % BLOCK;
        let mut bytes = Vec::with_capacity(plaintext.len() + padding);
        bytes.extend_from_slice(plaintext);
        bytes.resize(plaintext.len() + padding, u8::try_from(padding).expect("at most 16"));
        let cipher = Aes128::new(&self.0.into());
        for block in bytes.chunks_exact_mut(BLOCK) {
            cipher.encrypt_block(block.try_into().expect("chunks are of this size"));
        }
        bytes
    }

    /// Decrypts.
    ///
    /// # Errors
    /// [`WeixinError::Undecipherable`] if it is not of whole blocks, or the key is another one and so the padding is wrong.
    pub fn decrypt(&self, mut bytes: Vec<u8>) -> Result<Vec<u8>, WeixinError> {
        let wrong = |problem| WeixinError::Undecipherable { problem };
        if bytes.is_empty() || !bytes.len().is_multiple_of(BLOCK) {
            return Err(wrong("it does not consist of whole blocks"));
        }
        let cipher = Aes128::new(&self.0.into());
        for block in bytes.chunks_exact_mut(BLOCK) {
            cipher.decrypt_block(block.try_into().expect("chunks are of this size"));
        }
        let padding = bytes.last().copied().unwrap_or_default();
        let kept = bytes.len().checked_sub(padding.into()).filter(|_| (1..=BLOCK).contains(&padding.into()));
        match kept {
            Some(kept) if bytes[kept..].iter().all(|byte| *byte == padding) => {
                bytes.truncate(kept);
                Ok(bytes)
            }
            _ => Err(wrong("its padding is wrong, so the key may be another one")),
        }
    }
}

/// Where a received file lies, and its key: what [`crate::chat`] carries without knowing it.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Reference {
    /// The whole address.
    pub full_url: Option<String>,
    /// `encrypt_query_param`, what stands in the address below `cdn_url`.
    pub param: Option<String>,
    /// The key, in hex; a file without one is not encrypted.
    pub key: Option<String>,
}

impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[file]")
    }
}

/// How a file is shown. The numbers of `media_type` and of items differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MediaKind {
    /// A picture.
    Image,
    /// A film.
    Video,
    /// Anything else.
    File,
}

impl MediaKind {
    fn number(self) -> u8 {
        match self {
            Self::Image => 1,
            Self::Video => 2,
            Self::File => 3,
        }
    }
}

/// Encrypts and uploads a file. Returns the item of a message that shows it to `to`.
///
/// # Errors
/// Any [`WeixinError`]. A refusal of the CDN (4xx) is final; anything else was tried three times.
pub async fn upload(api: &Api, to: &str, kind: MediaKind, name: &str, plaintext: &[u8]) -> Result<Value, WeixinError> {
    if plaintext.len() > FILE_BYTES_MAX {
        return Err(WeixinError::FileTooLarge { bytes_max: FILE_BYTES_MAX });
    }
    let key = Key::random();
    let ciphertext = key.encrypt(plaintext);
    let filekey = hex::encode(&random::some::<BLOCK>());
    let params = json!({
        "filekey": filekey,
        "media_type": kind.number(),
        "to_user_id": to,
        "rawsize": plaintext.len(),
        "rawfilemd5": hex::encode(&Md5::digest(plaintext)),
        "filesize": ciphertext.len(),
        "no_need_thumb": true,
        "aeskey": key.hex(),
    });
    let target = api.upload_target(params).await?;
    let full_url = target.upload_full_url.filter(|url| !url.trim().is_empty());
    let query = target.upload_param.map(|param| [("encrypted_query_param", param), ("filekey", filekey)]);
    let url = resolve(api, "upload", full_url.as_deref(), query.as_ref().map(<[_; 2]>::as_slice))?;
    let size = ciphertext.len();
    let param = put(api, &url, &ciphertext).await?;
    let media = json!({ "encrypt_query_param": param, "aes_key": STANDARD.encode(key.hex()), "encrypt_type": 1 });
    Ok(match kind {
        MediaKind::Image => json!({ "type": 2, "image_item": { "media": media, "mid_size": size } }),
        MediaKind::Video => json!({ "type": 5, "video_item": { "media": media, "video_size": size } }),
        MediaKind::File => {
            let len = plaintext.len().to_string();
            json!({ "type": 4, "file_item": { "media": media, "file_name": name, "len": len } })
        }
    })
}

/// Uploads, and returns what the CDN calls the file.
async fn put(api: &Api, url: &Url, ciphertext: &[u8]) -> Result<String, WeixinError> {
    let mut tries = 1;
    loop {
        match within("upload", TRANSFER_DEADLINE, put_once(api, url, ciphertext)).await {
            Err(error) if tries < TRIES && !matches!(error, WeixinError::Status { status: 400..=499, .. }) => {
                tries += 1
            }
            outcome => return outcome,
        }
    }
}

async fn put_once(api: &Api, url: &Url, ciphertext: &[u8]) -> Result<String, WeixinError> {
    let method = "upload";
    let request = api.http().post(url.clone()).header("content-type", "application/octet-stream");
    let sent = request.body(ciphertext.to_vec()).send().await;
    let response = sent.map_err(|source| WeixinError::network(method, source))?;
    let status = response.status().as_u16();
    if status != 200 {
        return Err(WeixinError::Status { method, status, retry_after: None });
    }
    let param = response.headers().get("x-encrypted-param").and_then(|value| value.to_str().ok());
    let problem = || WeixinError::Malformed { method, problem: "there is no x-encrypted-param".to_owned() };
    param.map(str::to_owned).ok_or_else(problem)
}

/// Fetches a file and decrypts it.
///
/// # Errors
/// Any [`WeixinError`].
pub async fn download(api: &Api, reference: &Reference) -> Result<Vec<u8>, WeixinError> {
    let method = "download";
    let query = reference.param.clone().map(|param| [("encrypted_query_param", param)]);
    let url = resolve(api, method, reference.full_url.as_deref(), query.as_ref().map(<[_; 1]>::as_slice))?;
    let transfer = async {
        let sent = api.http().get(url).send().await;
        let response = sent.map_err(|source| WeixinError::network(method, source))?;
        let status = response.status().as_u16();
        if status != 200 {
            return Err(WeixinError::Status { method, status, retry_after: None });
        }
        body(method, response, FILE_BYTES_MAX + BLOCK).await
    };
    let bytes = within(method, TRANSFER_DEADLINE, transfer).await?;
    match &reference.key {
        None => Ok(bytes),
        Some(key) => match Key::from_hex(key) {
            Some(key) => key.decrypt(bytes),
            None => Err(WeixinError::Undecipherable { problem: "its key is no key" }),
        },
    }
}

/// The address of a file: the whole one if there is one, or else one below `cdn_url`.
fn resolve(
    api: &Api,
    method: &'static str,
    full_url: Option<&str>,
    query: Option<&[(&str, String)]>,
) -> Result<Url, WeixinError> {
    if let Some(full_url) = full_url {
        let url = Url::parse(full_url.trim()).map_err(|_| WeixinError::ForeignHost { method })?;
        return if is_ours(api, &url) { Ok(url) } else { Err(WeixinError::ForeignHost { method }) };
    }
    let problem = || WeixinError::Malformed { method, problem: "there is no address".to_owned() };
    let query = query.ok_or_else(problem)?;
    let mut url = below(api.cdn(), method).ok_or(WeixinError::Address { what: "cdn_url" })?;
    url.query_pairs_mut().extend_pairs(query);
    Ok(url)
}

/// Whether an address is at one of the configured hosts, on the same port and no less protected.
fn is_ours(api: &Api, url: &Url) -> bool {
    let same = |ours: &Url| {
        ours.host_str() == url.host_str()
            && ours.port_or_known_default() == url.port_or_known_default()
            && ours.scheme() == url.scheme()
    };
    url.username().is_empty() && url.password().is_none() && [api.base(), api.cdn()].into_iter().any(same)
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use super::*;
    use crate::config::Secret;

    fn key() -> Key {
        Key::from_hex("000102030405060708090a0b0c0d0e0f").expect("a key")
    }

    fn api() -> Api {
        static API: LazyLock<Api> = LazyLock::new(|| {
            let token = Some(Secret::new("t"));
            Api::new("https://ilinkai.weixin.qq.com", "https://novac2c.cdn.weixin.qq.com/c2c", token).expect("a client")
        });
        API.clone()
    }

    /// FIPS 197, appendix C.1, and the padding block after it.
    #[test]
    fn a_known_block_is_encrypted_as_the_standard_says() {
        let plaintext: Vec<u8> = (0..16).map(|n| n * 0x11).collect();
        let ciphertext = key().encrypt(&plaintext);
        assert_eq!(hex::encode(&ciphertext[..16]), "69c4e0d86a7b0430d8cdb78070b4c55a");
        // AES-128-ECB of sixteen bytes 0x10, by OpenSSL.
        assert_eq!(hex::encode(&ciphertext[16..]), "954f64f2e4e86e9eee82d20216684899");
        // RFC 1321, A.5.
        assert_eq!(hex::encode(&Md5::digest(b"message digest")), "f96b697d7cb7938d525a2f31aaf161d0");
    }

    #[test]
    fn a_key_is_read_in_both_forms() {
        let raw = STANDARD.encode(key().0);
        let of_hex = STANDARD.encode(key().hex());
        assert_eq!([Key::from_base64(&raw), Key::from_base64(&of_hex)], [Some(key()), Some(key())]);
        for text in ["", "!", "AAAA", &STANDARD.encode([b'g'; 32]), &STANDARD.encode([0xff; 32])] {
            assert_eq!(Key::from_base64(text), None, "{text}");
        }
        assert_eq!(Key::from_hex("00010203é405060708090a0b0c0d0e0"), None);
        let reference = Reference { key: Some(key().hex()), ..Reference::default() };
        assert!(!format!("{:?} {reference:?}", key()).contains("0102"));
    }

    #[test]
    fn a_file_that_is_no_ciphertext_is_refused() {
        for bytes in [vec![], vec![0; 15], vec![0; 17], vec![7; 32], key().encrypt(b"x")[..0].to_vec()] {
            assert!(key().decrypt(bytes).is_err());
        }
        let other = Key::new([9; 16]);
        assert!(other.decrypt(key().encrypt(b"what was said")).is_err());
    }

    #[test]
    fn only_the_configured_hosts_are_asked() {
        let url = |url: &str| resolve(&api(), "download", Some(url), None).is_ok();
        assert!(url("https://novac2c.cdn.weixin.qq.com/c2c/download?x=1"));
        assert!(url("https://ilinkai.weixin.qq.com:443/x"));
        let foreign = [
            "http://novac2c.cdn.weixin.qq.com/x",
            "https://novac2c.cdn.weixin.qq.com:8443/x",
            "https://novac2c.cdn.weixin.qq.com.example.org/x",
            "https://novac2c.cdn.weixin.qq.com@example.org/x",
            "https://user@novac2c.cdn.weixin.qq.com/x",
            "https://127.0.0.1/x",
            "file:///etc/passwd",
            "novac2c.cdn.weixin.qq.com/x",
        ];
        for address in foreign {
            assert!(!url(address), "{address}");
        }
        let param = [("encrypted_query_param", "a+/=&b".to_owned())];
        let built = resolve(&api(), "download", None, Some(&param)).expect("an address");
        let wanted = "https://novac2c.cdn.weixin.qq.com/c2c/download?encrypted_query_param=a%2B%2F%3D%26b";
        assert_eq!(built.as_str(), wanted);
    }

    proptest! {
        #[test]
        fn any_bytes_come_back(bytes in proptest::collection::vec(any::<u8>(), 0..100), key in any::<[u8; 16]>()) {
            let ciphertext = Key::new(key).encrypt(&bytes);
            prop_assert_eq!(ciphertext.len(), (bytes.len() + 1).div_ceil(16) * 16);
            prop_assert_eq!(Key::new(key).decrypt(ciphertext).ok(), Some(bytes));
        }

        #[test]
        fn any_ciphertext_is_decrypted_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            drop(key().decrypt(bytes));
        }

        #[test]
        fn any_key_is_read_or_refused(text in any::<String>()) {
            let hex = Key::from_hex(&text);
            prop_assert!(hex.is_none() || text.len() == 32);
            let _any = Key::from_base64(&text);
        }
    }
}
