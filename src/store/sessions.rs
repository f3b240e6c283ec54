//! Which agent and which ACP session a conversation talks to.

use rusqlite::params;

use super::{Store, StoreError};
use crate::chat::Conversation;
use crate::clock::UnixMillis;
use crate::id::{AgentName, SessionId};

/// The agent of a conversation, and its session once the agent has made one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRow {
    /// The conversation.
    pub conversation: Conversation,
    /// The agent that was chosen for it.
    pub agent: AgentName,
    /// The session there; none before the first turn and after `/new`.
    pub session: Option<SessionId>,
}

impl Store {
    /// Records the agent and session of a conversation.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn put_session(&self, row: SessionRow) -> Result<(), StoreError> {
        let now = UnixMillis::now();
        self.writer
            .run("record a session", move |db| {
                let key = serde_json::to_string(&row.conversation).expect("plain data serialises");
                let session = row.session.as_ref().map(SessionId::as_str);
                db.prepare_cached(
                    "INSERT OR REPLACE INTO sessions (conversation, agent, session_id, updated_ms)
                     VALUES (?1, ?2, ?3, ?4)",
                )?
                .execute(params![key, row.agent.as_str(), session, now.0])?;
                Ok(())
            })
            .await
    }

    /// The session of one conversation.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn session(&self, conversation: &Conversation) -> Result<Option<SessionRow>, StoreError> {
        use rusqlite::OptionalExtension;
        let key = serde_json::to_string(conversation).expect("plain data serialises");
        let row: Option<(String, Option<String>)> = self
            .writer
            .run("read a session", move |db| {
                db.query_row("SELECT agent, session_id FROM sessions WHERE conversation = ?1", [key], |row| {
                    Ok((row.get(0)?, row.get(1)?))
                })
                .optional()
            })
            .await?;
        Ok(row.map(|(agent, session)| SessionRow {
            conversation: conversation.clone(),
            agent: AgentName::new(agent),
            session: session.map(SessionId::new),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_last_session_of_a_conversation_is_kept() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let store = Store::open(&dir.path().join("state.db")).expect("opens");
        let conversation = Conversation { thread: Some("9".into()), ..Conversation::new("telegram", "7") };
        assert_eq!(store.session(&conversation).await.expect("reads"), None);
        for session in [Some(SessionId::from("one")), None, Some(SessionId::from("two"))] {
            let row = SessionRow { conversation: conversation.clone(), agent: "default".into(), session };
            store.put_session(row.clone()).await.expect("records");
            assert_eq!(store.session(&conversation).await.expect("reads"), Some(row));
        }
        assert_eq!(store.session(&Conversation::new("telegram", "7")).await.expect("reads"), None);
    }
}
