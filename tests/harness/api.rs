//! A daemon that listens for clients of Hyper-V's API, and what the clients of a story are given to find it.

use crate::binary::{Ran, run};
use crate::scratch::{Scratch, raw_disk};
use crate::{Daemon, oracle};
use serde_json::Value;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// The password of every user of a story.
pub const PASSWORD: &str = "correct-horse-battery";

/// A daemon with WS-Management and CIM-XML on loopback, with and without TLS, and an administrator `ada`. `C:` is a folder of its own.
#[derive(Debug)]
pub struct Api {
    /// The daemon.
    pub daemon: Daemon,
    places: Scratch,
}

impl Api {
    /// Starts one on `engine` (`sim`, `qemu`).
    ///
    /// # Panics
    /// When it does not come up.
    #[must_use]
    pub fn start(engine: &str) -> Self {
        let places = Scratch::new();
        let config = places.join("config.toml");
        let exports = places.join("exports");
        std::fs::create_dir(&exports).expect("made");
        let text = format!(
            "[wsman]\nhttp = [\"127.0.0.1:0\"]\nhttps = [\"127.0.0.1:0\"]\n[cimxml]\nhttp = [\"127.0.0.1:0\"]\nhttps = [\"127.0.0.1:0\"]\n[cim]\npaths = {{ \"C:\" = {} }}\n",
            Value::from(exports.to_str().expect("UTF-8"))
        );
        std::fs::write(&config, text).expect("written");
        let (config, ready) = (config.display().to_string(), places.join("ready").display().to_string());
        let daemon = Daemon::with(&["--engine", engine, "--config", &config, "--ready-file", &ready]);
        let secret = places.join("secret");
        std::fs::write(&secret, PASSWORD).expect("written");
        let words = ["user", "add", "ada", "--grant", "administrator", "--password-file"];
        daemon.run(words.map(AsRef::as_ref).into_iter().chain([secret.as_os_str()])).ok();
        Self { daemon, places }
    }

    /// The address of WS-Management with `scheme`.
    ///
    /// # Panics
    /// When it does not listen there.
    #[must_use]
    pub fn url(&self, scheme: &str) -> String {
        self.listens(scheme, "/wsman")
    }

    /// The address of CIM-XML with `scheme`.
    ///
    /// # Panics
    /// When it does not listen there.
    #[must_use]
    pub fn cimxml(&self, scheme: &str) -> String {
        self.listens(scheme, "/cimom")
    }

    fn listens(&self, scheme: &str, path: &str) -> String {
        let ready = std::fs::read_to_string(self.places.join("ready")).expect("the ready file");
        let wanted = format!("{scheme}://");
        let there = |line: &&str| line.starts_with(&wanted) && line.ends_with(path);
        ready.lines().find(there).expect("it listens").to_owned()
    }

    /// The same without scheme and path: `127.0.0.1:PORT`.
    #[must_use]
    pub fn address(&self, scheme: &str) -> String {
        let url = self.url(scheme);
        url.trim_start_matches(scheme).trim_start_matches("://").split('/').next().unwrap_or("").to_owned()
    }

    /// What clients call `C:\NAME`.
    #[must_use]
    pub fn drive_c(&self, name: &str) -> PathBuf {
        self.places.join("exports").join(name)
    }

    /// A file of the story's own.
    #[must_use]
    pub fn place(&self, name: &str) -> PathBuf {
        self.places.join(name)
    }

    /// Runs a client's script of `tests/clients` with `program`; it must succeed.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn script<S: AsRef<OsStr>>(
        &self,
        program: &Path,
        script: &str,
        arguments: &[S],
        scheme: &str,
    ) -> Ran {
        let ran = run(self.command(program, script, scheme).args(arguments));
        ran.ok();
        ran
    }

    /// A script of `tests/clients`, to be run by `program`.
    pub fn command(&self, program: &Path, script: &str, scheme: &str) -> Command {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let url = self.url(scheme).replace("://", "://ada@");
        let mut command = Command::new(program);
        command
            .arg(root.join("clients").join(script))
            .env("PYTHONPATH", root.join("../examples"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("HYPERV_URL", url)
            .env("HYPERV_PASSWORD", PASSWORD)
            .env("HYPERV_INSECURE", "1");
        command
    }

    /// Runs a script of `tests/clients` with the Python that has the clients; it must succeed.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn python(&self, script: &str, arguments: &[&str], scheme: &str) {
        let python = oracle::python_with(&["pypsrp"]).expect("looked for before");
        self.script(&python, script, arguments, scheme);
    }

    /// Defines a machine with a small disk; its id.
    ///
    /// # Panics
    /// When it cannot be.
    pub fn machine(&self, name: &str) -> String {
        let raw = self.daemon.home().join(format!("{name}.img"));
        raw_disk(&raw, 4 << 20, &[(0, 1 << 20)]);
        let disk = format!("{},format=raw", raw.display());
        let made =
            self.daemon.run(["machine", "define", name, "--memory", "64", "--disk", &disk, "--json"]).json();
        made["id"].as_str().expect("an id").to_owned()
    }

    /// What the machine is, as its own command says.
    ///
    /// # Panics
    /// When there is no such machine.
    #[must_use]
    #[track_caller]
    pub fn shown(&self, name: &str) -> Value {
        self.daemon.run(["machine", "show", name, "--json"]).json()
    }

    /// Waits until the machine is in that state, as our own command says.
    ///
    /// # Panics
    /// When it is not after a minute.
    #[track_caller]
    pub fn reaches(&self, name: &str, state: &str) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.shown(name)["state"] != state {
            assert!(Instant::now() < deadline, "waited in vain until `{name}` is {state}");
        }
    }

    /// Whether there is a machine of that name, as our own command says.
    ///
    /// # Panics
    /// When it cannot be asked.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        let all = self.daemon.run(["machine", "list", "--json"]).json();
        all.as_array().into_iter().flatten().any(|machine| machine["name"] == name)
    }

    /// What the audit log has of what `user` did.
    ///
    /// # Panics
    /// When a line of it is no JSON.
    #[must_use]
    pub fn audited(&self, does: &str, user: &str) -> Vec<Value> {
        let text = std::fs::read_to_string(self.daemon.data().join("audit.log")).unwrap_or_default();
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("a line of JSON"));
        lines.filter(|line| line["does"] == does && line["user"] == user).collect()
    }
}
