//! The DingTalk test server as a process: `dingtalk-server --listen 127.0.0.1:8083 --client-id I --client-secret S`.
//!
//! It prints its base URL as soon as it listens. The control endpoints stand in `control.rs`.

use std::net::SocketAddr;

use anyhow::Context as _;
use clap::Parser;
use tokio::net::TcpListener;

#[expect(dead_code, reason = "the tests use the rest of it")]
#[path = "mod.rs"]
mod dingtalk;
#[expect(dead_code, reason = "the tests use the rest of it")]
#[path = "../faults.rs"]
mod faults;
#[path = "../shared.rs"]
mod shared;

use dingtalk::Shared;
use dingtalk::state::State;

#[derive(Parser)]
struct Args {
    /// Where to listen; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// The app.
    #[arg(long, default_value = "ding-the-test-app")]
    client_id: String,
    /// Its secret.
    #[arg(long, default_value = "the-secret-of-the-test-app")]
    client_secret: String,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let listener = TcpListener::bind(args.listen).await.with_context(|| format!("cannot listen on {}", args.listen))?;
    let base = format!("http://{}", listener.local_addr()?);
    println!("{base}");
    Shared::new(State::new(&args.client_id, &args.client_secret, &base)).serve(listener).await;
    Ok(())
}
