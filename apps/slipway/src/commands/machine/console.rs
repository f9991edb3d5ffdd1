//! `slipway machine console`: a guest's serial port.
//!
//! The daemon only says where the port is; bytes go straight between here and the guest's socket. The guest's log keeps
//! everything the port said since the start, so waiting for a text needs no attachment and cannot come too late. On a
//! terminal the console is raw and Ctrl-] detaches; otherwise stdin goes to the guest as it is.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Seek, SeekFrom, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use rest::wire::Console;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

use crate::failure::{Code, Failure, Result};
use crate::session::Session;

/// Ctrl-].
const DETACH: u8 = 0x1d;
/// How often the log is looked at for more.
const LOOK: Duration = Duration::from_millis(50);
/// How often the machine is asked whether it still runs.
const ALIVE: Duration = Duration::from_secs(1);
/// Bytes moved at a time.
const PIECE: usize = 16 << 10;
/// Lines of the log that a failed wait quotes.
const QUOTED: usize = 5;
/// How long the rest of a line may take to follow the text that was waited for: a prompt has none.
const REST_OF_LINE: Duration = Duration::from_secs(1);
/// Most of one line that is printed.
const MAX_LINE: usize = 4 << 10;
/// Longest that the guest may take to accept a line.
const SEND_LIMIT: Duration = Duration::from_secs(30);

/// What to do at the console.
#[derive(Debug, Args)]
pub(crate) struct ConsoleArgs {
    /// Name, id, or the beginning of either
    machine: String,
    /// Print what the console said since the machine started, and end
    #[arg(long, conflicts_with_all = ["send", "wait_for"])]
    log: bool,
    /// Send a line
    #[arg(long, value_name = "LINE")]
    send: Option<String>,
    /// Print the first line with this text and end: after the line that is sent, else since the machine started
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    wait_for: Option<String>,
    /// Seconds after which to give up
    #[arg(long, value_name = "S")]
    timeout: Option<u64>,
}

pub(super) async fn console(s: &Session, args: ConsoleArgs) -> Result {
    let places = s.client.console(&args.machine).await?;
    if args.log {
        return print_log(&log_of(&places)?);
    }
    // Of a machine that is off there is only what it said.
    if !places.live && (args.wait_for.is_none() || args.send.is_some()) {
        let word = transfer::shell::word(&args.machine);
        return Err(Failure::new("invalid-state", format!("`{}` is off", args.machine)).code(Code::NotNow).hint(
            format!("`slipway machine start {word}` first; `slipway machine console {word} --log` prints what it last said"),
        ));
    }
    let deadline = args.timeout.and_then(|t| Instant::now().checked_add(Duration::from_secs(t)));
    if args.send.is_none() && args.wait_for.is_none() {
        let socket = socket_of(&places)?;
        let talk = s.printer;
        return off_thread(move || attach(&socket, deadline, |line| talk.talk(line))).await;
    }
    let log = if args.wait_for.is_some() { Some(Log::open(&log_of(&places)?)?) } else { None };
    let mut log = log;
    let mut attached = None;
    if let Some(line) = &args.send {
        if let Some(log) = &mut log {
            log.skip_to_end()?;
        }
        let (socket, line) = (socket_of(&places)?, line.clone());
        attached = Some(off_thread(move || send(&socket, &line)).await?);
    }
    let waited = match (log, &args.wait_for) {
        (Some(log), Some(text)) => wait_for(s, &args.machine, log, text, deadline).await,
        _ => Ok(()),
    };
    // Held until here: the guest's port may drop what nobody could read.
    drop(attached);
    waited
}

/// Runs what blocks where it cannot hold up the runtime.
async fn off_thread<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(e) => Err(Failure::new("internal", format!("the console's thread ended: {e}"))),
    }
}

fn missing(what: &str) -> Failure {
    Failure::new("not-supported", format!("this guest has no {what}")).code(Code::Failed)
}

fn socket_of(places: &Console) -> Result<PathBuf> {
    places.serial_socket.clone().ok_or_else(|| missing("serial port"))
}

fn log_of(places: &Console) -> Result<PathBuf> {
    places.serial_log.clone().ok_or_else(|| missing("serial log"))
}

fn print_log(path: &Path) -> Result {
    let at = |e: io::Error| Failure::at("read", path, &e);
    let mut file = File::open(path).map_err(at)?;
    match io::copy(&mut file, &mut io::stdout().lock()) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(at(e)),
        _ => Ok(()),
    }
}

/// A log that grows.
struct Log {
    path: PathBuf,
    file: File,
}

impl Log {
    fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|e| Failure::at("read", path, &e))?;
        Ok(Self { path: path.to_owned(), file })
    }

    fn skip_to_end(&mut self) -> Result {
        self.file.seek(SeekFrom::End(0)).map(drop).map_err(|e| Failure::at("read", &self.path, &e))
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        self.file.read(buffer).map_err(|e| Failure::at("read", &self.path, &e))
    }
}

/// Finds the first line with a text in a stream that comes in pieces.
struct Search<'a> {
    text: &'a [u8],
    /// From the beginning of a line; what is too long for one loses its front.
    tail: Vec<u8>,
}

impl<'a> Search<'a> {
    fn new(text: &'a str) -> Self {
        Self { text: text.as_bytes(), tail: Vec::new() }
    }

    /// Whether the text has appeared, counting `piece`, and whether its line has ended.
    fn feed(&mut self, piece: &[u8]) -> Found {
        self.tail.extend_from_slice(piece);
        let Some(at) = self.tail.windows(self.text.len()).position(|w| w == self.text) else {
            let line = self.tail.iter().rposition(|b| *b == b'\n').map_or(0, |n| n + 1);
            // A text over several lines must be found too.
            let keep = (self.tail.len() - line).clamp(self.text.len() - 1, MAX_LINE.max(self.text.len()));
            self.tail.drain(..self.tail.len().saturating_sub(keep));
            return Found::Nothing;
        };
        let begin = self.tail[..at].iter().rposition(|b| *b == b'\n').map_or(0, |n| n + 1);
        let behind = at + self.text.len();
        let end = self.tail[behind..].iter().position(|b| *b == b'\n');
        let line = &self.tail[begin..end.map_or(self.tail.len(), |n| behind + n)];
        let line = plain(&String::from_utf8_lossy(line));
        if end.is_some() || line.len() > MAX_LINE { Found::Line(line) } else { Found::Begun(line) }
    }
}

/// What a [`Search`] has found.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Nothing,
    /// The text, in a line that may go on.
    Begun(String),
    /// The whole line.
    Line(String),
}

/// A terminal's text without its control sequences.
fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c == '\x1b' {
            if chars.next_if_eq(&'[').is_some() {
                while chars.next_if(|c| !('@'..='~').contains(c)).is_some() {}
            }
            chars.next();
        } else if c == '\n' || c == '\t' || !c.is_control() {
            out.push(c);
        }
    }
    out
}

async fn wait_for(s: &Session, word: &str, mut log: Log, text: &str, deadline: Option<Instant>) -> Result {
    let mut search = Search::new(text);
    let mut buffer = vec![0; PIECE];
    let mut asked = Instant::now();
    let mut ended = false;
    let mut begun: Option<Instant> = None;
    loop {
        let n = log.read(&mut buffer)?;
        match search.feed(&buffer[..n]) {
            Found::Line(line) => return print_line(s, &line),
            Found::Begun(line) if n == 0 => {
                let over = begun.get_or_insert_with(Instant::now).elapsed() >= REST_OF_LINE;
                if over || ended || deadline.is_some_and(|d| Instant::now() >= d) {
                    return print_line(s, &line);
                }
                tokio::time::sleep(LOOK).await;
                continue;
            }
            _ if n > 0 => continue,
            _ => {}
        }
        // Everything it ever said was read after it had ended.
        if ended {
            return Err(Failure::new("invalid-state", format!("the guest ended before `{text}` appeared"))
                .code(Code::NotNow)
                .hint(last_lines(&log.path)));
        }
        if deadline.is_some_and(|d| Instant::now() >= d) {
            return Err(Failure::new("timeout", format!("`{text}` did not appear in time"))
                .hint(last_lines(&log.path)));
        }
        if asked.elapsed() >= ALIVE {
            asked = Instant::now();
            ended = s.client.machine(word).await?.state == "off";
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn print_line(s: &Session, line: &str) -> Result {
    if s.printer.json { s.printer.json(&serde_json::json!({ "line": line })) } else { s.printer.line(line) }
}

/// The end of the log, for a message.
fn last_lines(path: &Path) -> String {
    let tail = || -> io::Result<String> {
        let mut file = File::open(path)?;
        let size = file.metadata()?.len();
        file.seek(SeekFrom::Start(size.saturating_sub(4096)))?;
        let mut bytes = Vec::new();
        file.take(4096).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = tail().unwrap_or_default();
    let plain = plain(&text);
    let lines: Vec<&str> = plain.lines().map(str::trim_end).filter(|l| !l.is_empty()).collect();
    let last = &lines[lines.len().saturating_sub(QUOTED)..];
    if last.is_empty() {
        format!("the console has said nothing; `{}` is its log", path.display())
    } else {
        format!("the console's last lines were:\n  {}", last.join("\n  "))
    }
}

fn connect(socket: &Path) -> Result<UnixStream> {
    UnixStream::connect(socket).map_err(|e| Failure::at("attach to", socket, &e))
}

/// Sends `line` and stays attached, reading and forgetting what comes back: the log has it.
fn send(socket: &Path, line: &str) -> Result<Attached> {
    let at = |e: io::Error| Failure::at("send to", socket, &e);
    let mut stream = connect(socket)?;
    let mut reader = stream.try_clone().map_err(at)?;
    let drain = thread::spawn(move || {
        let mut buffer = [0; PIECE];
        while matches!(reader.read(&mut buffer), Ok(n) if n > 0) {}
    });
    stream.set_write_timeout(Some(SEND_LIMIT)).map_err(at)?;
    stream.write_all(format!("{line}\r").as_bytes()).map_err(at)?;
    Ok(Attached { stream, drain: Some(drain) })
}

/// A port that is held open.
struct Attached {
    stream: UnixStream,
    drain: Option<thread::JoinHandle<()>>,
}

impl Drop for Attached {
    fn drop(&mut self) {
        // What was sent is in the guest's hands; QEMU reads a closed socket to its end.
        let _ = self.stream.shutdown(Shutdown::Both);
        if let Some(drain) = self.drain.take() {
            let _ = drain.join();
        }
    }
}

/// Why an attachment ended.
enum Ended {
    Detached,
    GuestGone,
    Output(io::Error),
}

fn attach(socket: &Path, deadline: Option<Instant>, talk: impl Fn(&str)) -> Result {
    let at = |e: io::Error| Failure::at("attach to", socket, &e);
    let stream = connect(socket)?;
    let raw = Raw::enter();
    if raw.is_some() {
        talk("attached; Ctrl-] detaches\r");
    }
    let (sender, receiver) = mpsc::channel();
    let mut from_guest = stream.try_clone().map_err(at)?;
    let over = sender.clone();
    thread::spawn(move || {
        let _ = over.send(match print_from(&mut from_guest) {
            Ok(()) => Ended::GuestGone,
            Err(e) => Ended::Output(e),
        });
    });
    let mut to_guest = stream.try_clone().map_err(at)?;
    let interactive = raw.is_some();
    thread::spawn(move || {
        // At the end of what there is to send, what the guest says is still of interest.
        if type_into(&mut to_guest, interactive) {
            let _ = sender.send(Ended::Detached);
        }
    });
    let ended = match deadline {
        Some(deadline) => receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())).ok(),
        None => receiver.recv().ok(),
    };
    let _ = stream.shutdown(Shutdown::Both);
    drop(raw);
    match ended {
        Some(Ended::Detached) => talk("detached"),
        Some(Ended::GuestGone) => talk("the guest's console closed"),
        Some(Ended::Output(e)) if e.kind() != io::ErrorKind::BrokenPipe => return Err(at(e)),
        Some(Ended::Output(_)) | None => {}
    }
    Ok(())
}

fn print_from(guest: &mut UnixStream) -> io::Result<()> {
    let mut buffer = [0; PIECE];
    let mut out = io::stdout();
    loop {
        match guest.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => {
                out.write_all(&buffer[..n])?;
                out.flush()?;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return Ok(()),
        }
    }
}

/// Copies stdin to the guest; true when the person detached.
fn type_into(guest: &mut UnixStream, interactive: bool) -> bool {
    let mut buffer = [0; PIECE];
    let mut keys = io::stdin();
    while let Ok(n) = keys.read(&mut buffer) {
        if n == 0 {
            break;
        }
        let detach = if interactive { buffer[..n].iter().position(|b| *b == DETACH) } else { None };
        if guest.write_all(&buffer[..detach.unwrap_or(n)]).is_err() {
            break;
        }
        if detach.is_some() {
            return true;
        }
    }
    false
}

/// A terminal in raw mode for as long as this lives.
struct Raw(Termios);

impl Raw {
    /// `None` when stdin is no terminal, or will not be raw.
    fn enter() -> Option<Self> {
        if !io::stdin().is_terminal() {
            return None;
        }
        let before = tcgetattr(io::stdin().as_fd()).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(io::stdin().as_fd(), OptionalActions::Now, &raw).ok()?;
        Some(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin().as_fd(), OptionalActions::Drain, &self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_found_across_pieces_with_its_line() {
        let line = |text: &str| Found::Line(text.to_owned());
        let mut search = Search::new("GUEST-READY");
        assert_eq!(search.feed(b"boot\r\n\x1b[0m\x1b[37mnow GUEST"), Found::Nothing);
        assert_eq!(search.feed(b"-"), Found::Nothing);
        assert_eq!(search.feed(b""), Found::Nothing);
        assert_eq!(search.feed(b"READY o"), Found::Begun("now GUEST-READY o".to_owned()));
        assert_eq!(search.feed(b"k\r\nmore"), line("now GUEST-READY ok"));
        let mut search = Search::new("aab");
        assert_eq!(search.feed(b"aa"), Found::Nothing);
        assert_eq!(search.feed(b"ab\n"), line("aaab"), "a false start overlaps the real one");
        let mut one = Search::new("x");
        assert_eq!(one.feed(b"yyy\n"), Found::Nothing);
        assert_eq!(one.feed(b"x\n"), line("x"));
        let mut two = Search::new("a\nb");
        assert_eq!(two.feed(b"..a\n"), Found::Nothing);
        assert_eq!(two.feed(b"b\n"), line("a\nb"), "what the text begins with is all that is kept");
    }

    #[test]
    fn a_line_without_end_is_held_in_bounded_memory() {
        let mut search = Search::new("end");
        for _ in 0..64 {
            assert_eq!(search.feed(&[b'x'; PIECE]), Found::Nothing);
            assert!(search.tail.len() <= MAX_LINE);
        }
        assert!(matches!(search.feed(b"end"), Found::Line(line) if line.len() <= MAX_LINE + 3));
    }

    #[test]
    fn control_sequences_are_left_out() {
        assert_eq!(plain("\x1b[2J\x1b[01;01H\x1b[=3hBdsDxe\r\n\x1b7a\tb\x1b["), "BdsDxe\na\tb");
    }

    #[test]
    fn a_line_reaches_the_guest_and_the_port_is_let_go() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("serial");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let guest = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut said = Vec::new();
            stream.read_to_end(&mut said).unwrap();
            said
        });
        drop(send(&path, "hello").unwrap());
        assert_eq!(guest.join().unwrap(), b"hello\r");
    }
}
