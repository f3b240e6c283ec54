//! `hermes agent echo`: an agent without a model. It answers with the prompt, and plays out scripted behaviour for
//! tests and demonstrations of a gateway.
//!
//! It keeps no history, and says so: `loadSession` is false.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::prompt::{Block, Prompt};
use super::server::{Brain, Gone, Past, StopReason, Turn, serve};
use super::{block_on, parse_duration};
use crate::jsonrpc::ErrorObject;

/// What a prompt can ask for, for `--help`.
const DIRECTIVES: &str = "\
A prompt is answered with itself and a line for each file, unless it begins with one of these words:
  stream [chunks=N] [bytes=N] [delay=DUR]  streams numbered chunks, as --chunks does
  ask [TITLE]                              asks for permission and says what was chosen
  sleep DUR                                says \"slept\" after a while
  think [TEXT]                             thinks, then answers
  tool [TITLE]                             makes a tool call
  refuse                                   ends with the stop reason \"refusal\"
  error [TEXT]                             ends with a JSON-RPC error
  crash [chunks=N] [code=N]                streams, then exits in the middle of the turn
  file BYTES NAME                          gives a file with numbered bytes, between two words
  picture                                  gives a picture, between two words
  link PATH                                gives a link to a file, between two words
  pid                                      says its process id";

/// Answers with the prompt, or does what the prompt asks for
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = DIRECTIVES)]
pub struct EchoArgs {
    /// Answer every prompt with this many numbered chunks
    #[arg(long, value_name = "N")]
    pub chunks: Option<usize>,
    /// Size of a numbered chunk in bytes
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub chunk_bytes: usize,
    /// Wait before every chunk, like 20ms
    #[arg(long, value_name = "DUR", default_value = "0ms", value_parser = parse_duration)]
    pub delay: Duration,
}

/// Runs the agent on stdin and stdout until stdin ends.
pub fn run(args: EchoArgs) -> ExitCode {
    block_on(serve(Echo { args, sessions: AtomicU64::new(0) }))
}

/// What a stream of numbered chunks adds up to. Chunk `i` (from 0) is `i:` followed by the letters of the alphabet, from
/// the `i`th on and over again, up to `chunk_bytes` bytes in all.
pub fn expected_output(chunks: usize, chunk_bytes: usize) -> String {
    (0..chunks).map(|index| chunk(index, chunk_bytes)).collect()
}

fn chunk(index: usize, chunk_bytes: usize) -> String {
    let mut chunk = String::with_capacity(chunk_bytes);
    write!(chunk, "{index}:").expect("writing to a string cannot fail");
    let letters = ('a'..='z').cycle().skip(index % 26);
    let missing = chunk_bytes.saturating_sub(chunk.len());
    chunk.extend(letters.take(missing));
    chunk
}

struct Echo {
    args: EchoArgs,
    sessions: AtomicU64,
}

/// What a prompt asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Directive {
    Echo,
    Stream(Stream),
    Ask(String),
    Sleep(Duration),
    Think(String),
    Tool(String),
    Refuse,
    Error(String),
    Crash { stream: Stream, code: i32 },
    File { bytes: usize, name: String },
    Picture,
    Link(String),
    Pid,
}

/// The largest file that is made up.
const FILE_BYTES_MAX: usize = 64 << 20;

/// A PNG of one dot.
pub const PICTURE: &[u8] = &[
    0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a, 0x00, 0x00, 0x00, 0x0d, 0x49, 0x48, 0x44, 0x52, 0x00, 0x00, 0x00,
    0x01, 0x00, 0x00, 0x00, 0x01, 0x08, 0x06, 0x00, 0x00, 0x00, 0x1f, 0x15, 0xc4, 0x89, 0x00, 0x00, 0x00, 0x0d, 0x49,
    0x44, 0x41, 0x54, 0x78, 0x9c, 0x63, 0xf8, 0xdf, 0xc0, 0xf0, 0x1f, 0x00, 0x06, 0x80, 0x02, 0x7f, 0x10, 0x4c, 0x1b,
    0xe1, 0x00, 0x00, 0x00, 0x00, 0x49, 0x45, 0x4e, 0x44, 0xae, 0x42, 0x60, 0x82,
];

/// The bytes of a file that is made up: 0 to 250, over and over.
pub fn made_up(bytes: usize) -> Vec<u8> {
    (0..=250).cycle().take(bytes).collect()
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Stream {
    chunks: usize,
    bytes: usize,
    delay: Duration,
}

/// Why a prompt is not played to its end.
enum Broken {
    Gone,
    Cancelled,
}

impl From<Gone> for Broken {
    fn from(Gone: Gone) -> Self {
        Self::Gone
    }
}

impl Brain for Echo {
    const NAME: &'static str = "hermes-echo";
    const TITLE: &'static str = "Echo";
    const IMAGES: bool = true;
    const AUDIO: bool = true;
    const CAN_LOAD: bool = false;

    fn create(&self) -> Result<String, ErrorObject> {
        let number = self.sessions.fetch_add(1, Ordering::Relaxed);
        Ok(format!("echo-{}-{number}", std::process::id()))
    }

    fn load(&self, _session: &str) -> Result<Vec<Past>, ErrorObject> {
        Err(ErrorObject::new(ErrorObject::METHOD_NOT_FOUND, "this agent keeps no sessions"))
    }

    async fn prompt(&self, turn: &mut Turn, prompt: Prompt) -> Result<StopReason, ErrorObject> {
        let text = prompt.words();
        let directive = self.read(&text).map_err(|e| ErrorObject::new(ErrorObject::INVALID_PARAMS, e))?;
        match directive {
            Directive::Refuse => Ok(StopReason::Refusal),
            Directive::Error(text) => Err(ErrorObject::new(ErrorObject::INTERNAL, text)),
            directive => match self.play(turn, directive, &with_files(text, &prompt)).await {
                Ok(()) => Ok(StopReason::EndTurn),
                Err(Broken::Cancelled | Broken::Gone) => Ok(StopReason::Cancelled),
            },
        }
    }
}

impl Echo {
    /// # Errors
    /// What is wrong with a directive, for people.
    fn read(&self, text: &str) -> Result<Directive, String> {
        let text = text.trim();
        let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let or = |default: &str| if rest.is_empty() { default.to_owned() } else { rest.trim().to_owned() };
        Ok(match word {
            "stream" => Directive::Stream(self.stream(&settings(rest)?)?),
            "crash" => {
                let mut settings = settings(rest)?;
                let code = settings.remove("code").unwrap_or("1").parse().map_err(|_| "code= wants a number")?;
                Directive::Crash { stream: self.stream(&settings)?, code }
            }
            "ask" => Directive::Ask(or("do something")),
            "sleep" => Directive::Sleep(parse_duration(rest.trim())?),
            "think" => Directive::Think(or("hm")),
            "tool" => Directive::Tool(or("a tool")),
            "refuse" => Directive::Refuse,
            "error" => Directive::Error(or("as you wish")),
            "file" => {
                let wants = "file wants a number of bytes and a name";
                let (bytes, name) = rest.trim().split_once(char::is_whitespace).ok_or(wants)?;
                let bytes = bytes.parse().ok().filter(|bytes| *bytes <= FILE_BYTES_MAX).ok_or(wants)?;
                Directive::File { bytes, name: name.trim().to_owned() }
            }
            "picture" => Directive::Picture,
            "link" => Directive::Link(or("/")),
            "pid" => Directive::Pid,
            _ if self.args.chunks.is_some() => Directive::Stream(self.stream(&BTreeMap::new())?),
            _ => Directive::Echo,
        })
    }

    fn stream(&self, settings: &BTreeMap<&str, &str>) -> Result<Stream, String> {
        let mut stream =
            Stream { chunks: self.args.chunks.unwrap_or(3), bytes: self.args.chunk_bytes, delay: self.args.delay };
        for (key, value) in settings {
            let number = || value.parse().map_err(|_| format!("{key}= wants a number"));
            match *key {
                "chunks" => stream.chunks = number()?,
                "bytes" => stream.bytes = number()?,
                "delay" => stream.delay = parse_duration(value)?,
                _ => return Err(format!("unknown setting {key}=")),
            }
        }
        Ok(stream)
    }

    async fn play(&self, turn: &mut Turn, directive: Directive, text: &str) -> Result<(), Broken> {
        match directive {
            Directive::Echo => {
                for piece in pieces(text, 3) {
                    self.pause(turn, self.args.delay).await?;
                    turn.say(piece).await?;
                }
            }
            Directive::Stream(stream) => self.say_stream(turn, &stream).await?,
            Directive::Crash { stream, code } => {
                self.say_stream(turn, &stream).await?;
                turn.flush().await?;
                exit(code);
            }
            Directive::Ask(title) => {
                let options = json!([
                    {"optionId": "yes", "name": "Yes", "kind": "allow_once"},
                    {"optionId": "always", "name": "Always", "kind": "allow_always"},
                    {"optionId": "no", "name": "No", "kind": "reject_once"},
                ]);
                let chosen = turn.ask(&title, options).await?.ok_or(Broken::Cancelled)?;
                turn.say(format!("chosen: {chosen}")).await?;
            }
            Directive::Sleep(time) => {
                self.pause(turn, time).await?;
                turn.say("slept").await?;
            }
            Directive::Think(thought) => {
                turn.think(thought).await?;
                turn.say("thought").await?;
            }
            Directive::Tool(title) => {
                turn.tool("tool", &title, "in_progress", true).await?;
                self.pause(turn, self.args.delay).await?;
                turn.tool("tool", &title, "completed", false).await?;
                turn.say("done").await?;
            }
            Directive::File { bytes, name } => {
                let blob = STANDARD.encode(made_up(bytes));
                let resource = json!({ "uri": format!("echo:///{name}"), "blob": blob });
                self.say_between(turn, json!({ "type": "resource", "resource": resource })).await?;
            }
            Directive::Picture => {
                let data = STANDARD.encode(PICTURE);
                self.say_between(turn, json!({ "type": "image", "data": data, "mimeType": "image/png" })).await?;
            }
            Directive::Link(path) => {
                let name = path.rsplit('/').next().unwrap_or_default();
                let uri = format!("file://{path}");
                self.say_between(turn, json!({ "type": "resource_link", "uri": uri, "name": name })).await?;
            }
            Directive::Pid => turn.say(std::process::id().to_string()).await?,
            // Answered by the caller.
            Directive::Refuse | Directive::Error(_) => {}
        }
        Ok(())
    }

    /// Gives something between two words.
    async fn say_between(&self, turn: &mut Turn, content: Value) -> Result<(), Broken> {
        turn.say("before").await?;
        self.pause(turn, self.args.delay).await?;
        turn.give(content).await?;
        self.pause(turn, self.args.delay).await?;
        turn.say("after").await?;
        Ok(())
    }

    async fn say_stream(&self, turn: &mut Turn, stream: &Stream) -> Result<(), Broken> {
        for index in 0..stream.chunks {
            self.pause(turn, stream.delay).await?;
            turn.say(chunk(index, stream.bytes)).await?;
        }
        Ok(())
    }

    /// Waits, and notices a cancel even if there is nothing to wait for.
    async fn pause(&self, turn: &mut Turn, time: Duration) -> Result<(), Broken> {
        // A sleep of no time still takes a tick of the timer.
        let pause = async {
            if !time.is_zero() {
                tokio::time::sleep(time).await
            }
        };
        tokio::select! {
            biased;
            () = turn.cancelled() => Err(Broken::Cancelled),
            () = pause => Ok(()),
        }
    }
}

/// What is said, and a line for each block that is no text.
fn with_files(text: String, prompt: &Prompt) -> String {
    let text = Some(text).filter(|text| !text.is_empty());
    text.into_iter().chain(prompt.blocks.iter().filter_map(Block::told)).collect::<Vec<_>>().join("\n")
}

#[expect(clippy::exit, reason = "dying in the middle of a turn is what was asked for")]
fn exit(code: i32) {
    std::process::exit(code);
}

fn settings(text: &str) -> Result<BTreeMap<&str, &str>, String> {
    let setting = |word| str::split_once(word, '=').ok_or_else(|| format!("{word:?} is no setting; write key=value"));
    text.split_whitespace().map(setting).collect()
}

/// Cuts a text into at most `count` pieces of about the same size.
fn pieces(text: &str, count: usize) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    let size = chars.len().div_ceil(count).max(1);
    chars.chunks(size).map(|piece| piece.iter().collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn echo(chunks: Option<usize>) -> Echo {
        let args = EchoArgs { chunks, chunk_bytes: 64, delay: Duration::ZERO };
        Echo { args, sessions: AtomicU64::new(0) }
    }

    #[test]
    fn a_chunk_says_its_number_and_has_its_size() {
        assert_eq!(expected_output(2, 5), "0:abc1:bcd");
        assert_eq!(expected_output(1, 0), "0:");
        assert_eq!(chunk(27, 6), "27:bcd");
    }

    #[test]
    fn directives_are_read() {
        let read = |text| echo(None).read(text).expect("valid");
        let stream = Stream { chunks: 5, bytes: 64, delay: Duration::from_millis(2) };
        assert_eq!(read("stream chunks=5 delay=2ms"), Directive::Stream(stream));
        assert_eq!(read("sleep 3s"), Directive::Sleep(Duration::from_secs(3)));
        assert_eq!(read("ask rm -rf /"), Directive::Ask("rm -rf /".into()));
        assert_eq!(read("hello there"), Directive::Echo);
        assert_eq!(read("file 7 a b.txt"), Directive::File { bytes: 7, name: "a b.txt".into() });
        assert_eq!((read("picture"), read("link /a")), (Directive::Picture, Directive::Link("/a".into())));
        assert!(echo(None).read("file 7").is_err() && echo(None).read("file x y").is_err());
        assert!(echo(None).read(&format!("file {} a", FILE_BYTES_MAX + 1)).is_err());
        assert!(matches!(echo(Some(7)).read("hello"), Ok(Directive::Stream(Stream { chunks: 7, .. }))));
        assert!(echo(None).read("stream chunk=5").is_err());
        assert!(echo(None).read("sleep").is_err());
    }

    proptest! {
        #[test]
        fn pieces_add_up_to_the_text(text in ".{0,40}", count in 1usize..6) {
            let pieces = pieces(&text, count);
            prop_assert!(pieces.len() <= count);
            prop_assert_eq!(pieces.concat(), text);
        }

        #[test]
        fn no_prompt_panics(text in "(stream|crash|sleep|ask|file|link|)[ =a-z0-9]{0,20}") {
            let _ = echo(None).read(&text);
        }
    }
}
