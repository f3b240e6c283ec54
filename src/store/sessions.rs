//! Which agent and which ACP session a conversation talks to.

use rusqlite::OptionalExtension;

use super::{Store, StoreError};
use crate::chat::Conversation;
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
    /// The sessions of these conversations, where there are any.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn sessions(&self, conversations: Vec<Conversation>) -> Result<Vec<SessionRow>, StoreError> {
        self.writer
            .run("read sessions", move |db| {
                let mut query = db.prepare_cached("SELECT agent, session_id FROM sessions WHERE conversation = ?1")?;
                let mut rows = Vec::new();
                for conversation in conversations {
                    let key = serde_json::to_string(&conversation).expect("plain data serialises");
                    let found =
                        query.query_row([key], |row| Ok((row.get::<_, String>(0)?, row.get::<_, Option<String>>(1)?)));
                    if let Some((agent, session)) = found.optional()? {
                        let (agent, session) = (AgentName::new(agent), session.map(SessionId::new));
                        rows.push(SessionRow { conversation, agent, session });
                    }
                }
                Ok(rows)
            })
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Change;

    #[tokio::test]
    async fn the_last_session_of_a_conversation_is_kept() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let store = Store::open(&dir.path().join("state.db")).expect("opens");
        let conversation = Conversation { thread: Some("9".into()), ..Conversation::new("telegram", "7") };
        let stored = || store.sessions(vec![conversation.clone(), Conversation::new("telegram", "7")]);
        assert_eq!(stored().await.expect("reads"), []);
        for session in [Some(SessionId::from("one")), None, Some(SessionId::from("two"))] {
            let row = SessionRow { conversation: conversation.clone(), agent: "default".into(), session };
            store.change(vec![Change::Session(row.clone())]).await.expect("records");
            assert_eq!(stored().await.expect("reads"), [row]);
        }
    }
}
