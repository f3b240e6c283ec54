//! The `local` platform: people at a terminal, over the control socket.
