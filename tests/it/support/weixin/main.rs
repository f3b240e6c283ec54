//! The Weixin test server as a process: `weixin-server --listen 127.0.0.1:8082 --token T --account A`.
//!
//! It prints its base URL as soon as it listens; the CDN is under `/c2c`. The control endpoints stand in `control.rs`.

use std::net::SocketAddr;

use anyhow::Context as _;
use clap::Parser;
use tokio::net::TcpListener;

#[expect(dead_code, reason = "the tests use the rest of it")]
#[path = "../faults.rs"]
mod faults;
#[path = "../shared.rs"]
mod shared;
#[expect(dead_code, reason = "the tests use the rest of it")]
#[path = "mod.rs"]
mod weixin;

use weixin::Shared;
use weixin::state::State;

#[derive(Parser)]
struct Args {
    /// Where to listen; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// The bot token.
    #[arg(long, default_value = "secret-token-of-the-test-bot")]
    token: String,
    /// The bot's id.
    #[arg(long, default_value = "testbot@im.bot")]
    account: String,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let shared = Shared::new(State::new(&args.token, &args.account));
    let listener = TcpListener::bind(args.listen).await.with_context(|| format!("cannot listen on {}", args.listen))?;
    println!("http://{}", listener.local_addr()?);
    shared.serve(listener).await;
    Ok(())
}
