//! The client side of the control socket.
