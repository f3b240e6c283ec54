//! Files in answers, as downloads.
//!
//! **Invariant:** a browser never takes a file for a page of the gateway: it is an attachment, and what is not a picture of
//! a known kind is nothing but bytes.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;
use hyper::body::Bytes;
use tokio::io::AsyncReadExt as _;

use super::message::File;
use super::site::Refusal;

/// What is read of a file at a time.
const PIECE_BYTES: usize = 64 << 10;

/// Pictures that pages show.
const PICTURES: [&str; 4] = ["image/png", "image/jpeg", "image/webp", "image/gif"];

/// Answers with a file.
///
/// # Errors
/// It is not kept any more.
pub(super) async fn answer(file: &File) -> Result<Response, Refusal> {
    let gone = |_| Refusal::new(StatusCode::GONE, "the file is not kept any more");
    let opened = tokio::fs::File::open(&file.path).await.map_err(gone)?;
    let bytes = opened.metadata().await.map_err(gone)?.len();
    let kind =
        PICTURES.into_iter().find(|kind| file.mime.as_deref() == Some(kind)).unwrap_or("application/octet-stream");
    let body = stream::unfold(Some(opened), |opened| async {
        let mut opened = opened?;
        let mut piece = vec![0; PIECE_BYTES];
        match opened.read(&mut piece).await {
            Ok(0) => None,
            Ok(read) => {
                piece.truncate(read);
                Some((Ok(Bytes::from(piece)), Some(opened)))
            }
            Err(error) => Some((Err(error), None)),
        }
    });
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
        (header::CONTENT_LENGTH, bytes.into()),
        (header::CONTENT_DISPOSITION, disposition(&file.name)),
    ];
    Ok((headers, Body::from_stream(body)).into_response())
}

/// RFC 6266, with the name in UTF-8 (RFC 8187).
fn disposition(name: &str) -> HeaderValue {
    let escaped: String = name
        .bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' => char::from(byte).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect();
    let value = HeaderValue::from_str(&format!("attachment; filename*=UTF-8''{escaped}"));
    value.unwrap_or(HeaderValue::from_static("attachment"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_say_anything_else() {
        let header = disposition("a \"b\"\r\nX: y; é.html");
        assert_eq!(
            header.to_str().expect("text"),
            "attachment; filename*=UTF-8''a%20%22b%22%0D%0AX%3A%20y%3B%20%C3%A9.html"
        );
    }
}
