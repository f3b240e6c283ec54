//! The Telegram test server as a process: `telegram-server --listen 127.0.0.1:8081 --token 1:a [--state-file F]`.
//!
//! It prints its base URL as soon as it listens. With a state file it goes on where it stopped, and the file follows
//! every change. The control endpoints stand in `control.rs`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use tokio::net::TcpListener;

#[expect(dead_code, reason = "the tests use the rest of it")]
#[path = "mod.rs"]
mod telegram;

use telegram::Shared;
use telegram::state::State;

/// Changes within this time are written together.
const WRITE_PAUSE: Duration = Duration::from_millis(50);

#[derive(Parser)]
struct Args {
    /// Where to listen; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// The bot's token.
    #[arg(long, default_value = "4242:the-token-of-the-test-bot")]
    token: String,
    /// Where the state is kept, as JSON.
    #[arg(long)]
    state_file: Option<PathBuf>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let mut state = State::new(&args.token);
    state.unknown_methods.clear();
    if let Some(file) = &args.state_file
        && file.exists()
    {
        let kept = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        state = serde_json::from_slice(&kept).with_context(|| format!("cannot read {}", file.display()))?;
    }
    let shared = Shared::new(state);
    if let Some(file) = args.state_file {
        tokio::spawn(keep(shared.clone(), file));
    }
    let listener = TcpListener::bind(args.listen).await.with_context(|| format!("cannot listen on {}", args.listen))?;
    println!("http://{}", listener.local_addr()?);
    shared.serve(listener).await;
    Ok(())
}

async fn keep(shared: Shared, file: PathBuf) {
    let mut changes = shared.subscribe();
    loop {
        if let Err(error) = write(&shared, &file) {
            eprintln!("cannot write {}: {error}", file.display());
        }
        if changes.changed().await.is_err() {
            return;
        }
        tokio::time::sleep(WRITE_PAUSE).await;
    }
}

/// A reader sees the whole old or the whole new state.
fn write(shared: &Shared, file: &Path) -> std::io::Result<()> {
    let state = serde_json::to_vec(&*shared.lock())?;
    let new = file.with_extension("new");
    std::fs::write(&new, state)?;
    std::fs::rename(new, file)
}
