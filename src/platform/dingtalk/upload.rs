//! Pictures in answers: uploaded first, then shown by what DingTalk calls them
//! (<https://open.dingtalk.com/document/orgapp/upload-media-files>).
//!
//! Deliberately absent: other files. How a bot sends one could not be verified.

use reqwest::Url;
use reqwest::multipart::{Form, Part};
use serde_json::Value;

use super::api::{Api, DingTalkError, accepted, call};
use crate::platform::delivery::Attached;
use crate::platform::uploads::Held;

/// The largest picture.
pub(super) const PICTURE_BYTES_MAX: u64 = 20 << 20;
const CALL: &str = "media/upload";

impl Api {
    /// Uploads a picture. Returns what it is called then.
    ///
    /// # Errors
    /// Any [`DingTalkError`]. Nothing is shown by it in any case.
    pub(super) async fn upload_picture(&self, file: &Attached, held: Held) -> Result<String, DingTalkError> {
        let token = self.token().await?;
        let malformed = |problem| DingTalkError::Malformed { call: CALL, status: 200, problem };
        let mut url = Url::parse(&format!("{}/media/upload", self.oapi())).map_err(|_| malformed("no address"))?;
        url.query_pairs_mut().append_pair("access_token", token.expose());
        let form =
            Form::new().text("type", "image").part("media", Part::bytes(held.bytes).file_name(file.name.clone()));
        let (status, answer) = call(CALL, self.http().await?.post(url).multipart(form)).await?;
        accepted(CALL, status, &answer)?;
        let media_id = answer.get("media_id").and_then(Value::as_str).filter(|id| !id.is_empty());
        media_id.map(str::to_owned).ok_or_else(|| malformed("it has no media_id"))
    }
}
