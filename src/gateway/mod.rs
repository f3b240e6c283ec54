//! Joins chats and agents.
