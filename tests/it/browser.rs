//! The pages in a real browser.

mod gateway;
mod outage;
mod reach;
mod scripted;
mod talk;
