//! A daemon of a story's own: private data folder, private socket, ended with the story.

use crate::binary::{Ran, run, slipway};
use crate::scratch::Scratch;
use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a daemon may take to answer on its socket. Starting is milliseconds; a loaded machine is not.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running `slipway serve`.
#[derive(Debug)]
pub struct Daemon {
    child: Option<Child>,
    home: Scratch,
    arguments: Vec<String>,
}

impl Daemon {
    /// Starts one in a new home and waits until it answers.
    #[must_use]
    pub fn start() -> Daemon {
        Daemon::with(&[])
    }

    /// The same with more arguments for `serve`.
    #[must_use]
    pub fn with(arguments: &[&str]) -> Daemon {
        let arguments = arguments.iter().map(|a| (*a).to_owned()).collect();
        let mut daemon = Daemon { child: None, home: Scratch::new(), arguments };
        daemon.launch();
        daemon
    }

    /// Starts it again on the same home; it must not be running.
    ///
    /// # Panics
    /// When it does not come up; what it wrote is in the message.
    pub fn launch(&mut self) {
        let ready = self.spawn();
        let deadline = Instant::now() + PATIENCE;
        let mut message = [0; 256];
        loop {
            match ready.recv(&mut message) {
                Ok(length) if message[..length].starts_with(b"READY=1") => break,
                _ => {}
            }
            assert!(!self.ended() && Instant::now() < deadline, "it does not come up:\n{}", self.read_log());
        }
    }

    /// Starts it on the same home with other arguments, and kills it as soon as `moment` has come, ready or not.
    ///
    /// # Panics
    /// When the moment does not come.
    pub fn die_starting(&mut self, arguments: &[&str], mut moment: impl FnMut() -> bool) {
        self.arguments = arguments.iter().map(|a| (*a).to_owned()).collect();
        let _ready = self.spawn();
        let deadline = Instant::now() + PATIENCE;
        while !moment() {
            assert!(!self.ended() && Instant::now() < deadline, "that does not happen:\n{}", self.read_log());
            std::thread::park_timeout(Duration::from_millis(2));
        }
        self.kill();
    }

    /// Starts the process, and returns the socket that it says on when it is ready, as it would say to systemd.
    fn spawn(&mut self) -> UnixDatagram {
        assert!(self.child.is_none(), "already running");
        let log = File::options().create(true).append(true).open(self.log()).expect("a log");
        let notify = self.home.join("n");
        let _ = std::fs::remove_file(&notify);
        let ready = UnixDatagram::bind(&notify).expect("a socket");
        ready.set_read_timeout(Some(Duration::from_millis(200))).expect("a timeout");
        let child = Command::new(slipway())
            .arg("serve")
            .arg("--data")
            .arg(self.data())
            .arg("--socket")
            .arg(self.socket())
            .args(&self.arguments)
            .env("NOTIFY_SOCKET", &notify)
            .env("SLIPWAY_CONFIG", "/dev/null")
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the log"))
            .stderr(log)
            .spawn()
            .expect("slipway starts");
        self.child = Some(child);
        ready
    }

    fn ended(&mut self) -> bool {
        self.child.as_mut().is_some_and(|c| c.try_wait().ok().flatten().is_some())
    }

    /// A client command against this daemon.
    pub fn run<I, S>(&self, arguments: I) -> Ran
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        run(Command::new(slipway())
            .args(arguments)
            .env("SLIPWAY_SOCKET", self.socket())
            .env("SLIPWAY_DATA", self.data()))
    }

    /// Ends it at once, as a crash would.
    ///
    /// # Panics
    /// When it is not running.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("running");
        child.kill().expect("a child can be killed");
        child.wait().expect("a killed child ends");
    }

    /// Ends it as `systemctl stop` would.
    ///
    /// # Panics
    /// When it is not running, or fails to end as it should.
    pub fn end(&mut self) {
        run(Command::new("kill").args(["-TERM", &self.pid().to_string()])).ok();
        let ended = self.child.take().expect("running").wait().expect("a child ends");
        assert!(ended.success(), "the daemon ended with {ended}:\n{}", self.read_log());
    }

    /// Its process.
    ///
    /// # Panics
    /// When it is not running.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("running").id()
    }

    /// Where its data is.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.home.join("data")
    }

    /// Where it listens.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.home.join("s")
    }

    /// A folder for the story's own files, beside the daemon's.
    #[must_use]
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    fn log(&self) -> PathBuf {
        self.home.join("log")
    }

    /// What it wrote so far.
    #[must_use]
    pub fn read_log(&self) -> String {
        std::fs::read_to_string(self.log()).unwrap_or_default()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Those of the simulator are nothing but files, gone with the home.
        let simulated = self.arguments.iter().any(|a| a == "sim");
        if self.child.is_some() && !simulated {
            // Guests outlive their daemon on purpose; a story's do not outlive the story.
            let list = self.run(["machine", "list", "--json"]);
            let machines = serde_json::from_str::<serde_json::Value>(&list.stdout).unwrap_or_default();
            for machine in
                machines.as_array().or_else(|| machines["machines"].as_array()).into_iter().flatten()
            {
                if let (Some(id), Some(state)) = (machine["id"].as_str(), machine["state"].as_str())
                    && state != "off"
                {
                    self.run(["machine", "stop", id]);
                }
            }
        }
        if self.child.is_some() {
            self.kill();
        }
        if std::thread::panicking() {
            println!("--- the daemon's log\n{}", self.read_log());
        }
    }
}
