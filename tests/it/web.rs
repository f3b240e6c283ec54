//! The platform `web`: who is let in, what is said, and streams that lose and repeat nothing.

mod client;
mod door;
mod outage;

mod talk;
