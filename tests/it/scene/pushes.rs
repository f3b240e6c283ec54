//! A hundred handoffs of the whole gateway, while DingTalk pushes a message every 20 ms, and each of them once.
