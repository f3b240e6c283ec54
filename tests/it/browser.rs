//! The pages in a real browser.

mod gateway;
mod reach;
mod scripted;
mod talk;
