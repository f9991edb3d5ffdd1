//! The daemon's settings: what the file says, what is in force, and who said so.
//!
//! ```text
//!   command line > environment > file > default          each value remembers its origin
//! ```
//!
//! A setting exists because something reads it; a key that nobody reads is refused with its line and the nearest known
//! one, because an option that is silently ignored is worse than an error. Where the file is, and what the command line
//! and the environment say, the caller tells.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyperv::{PathMap, Root};
use serde::Deserialize;
use toml::Spanned;

use crate::log;
use crate::peers;
use crate::remote::{Addresses, Remote};
use crate::run::{EngineChoice, ServiceOptions};

/// Largest configuration file that is read, in bytes; the sample with all its comments is 2 KiB.
const MAX_FILE: u64 = 1 << 20;
/// Most jobs at a time that can be asked for. Each may hold a disk's buffers: 64 of them are 4 GiB.
const MAX_WORKERS: usize = 64;
/// Longest that finished jobs can be remembered.
const MAX_RETENTION: Duration = Duration::from_secs(10 * 366 * 24 * 3600);
/// How long finished jobs are remembered unless told otherwise.
const RETENTION: Duration = Duration::from_secs(7 * 24 * 3600);
/// How unlike a known key an unknown one may be to be taken for a slip of it: 1 is the same word.
const MIN_LIKENESS: f64 = 0.75;

/// Every key, as it stands in the file.
const KEYS: &[&str] = &[
    "data",
    "socket",
    "group",
    "log",
    "engine",
    "ready_file",
    "jobs",
    "jobs.workers",
    "jobs.retention",
    "wsman",
    "wsman.http",
    "wsman.https",
    "wsman.allow_unencrypted",
    "wsman.certificate",
    "wsman.key",
    "cimxml",
    "cimxml.http",
    "cimxml.https",
    "cim",
    "cim.paths",
];

/// Who said what a setting is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// An option of the command line.
    Option(&'static str),
    /// A variable of the environment.
    Variable(&'static str),
    /// A line of the configuration file.
    File {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
    },
    /// Nobody.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Option(name) | Self::Variable(name) => f.write_str(name),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

/// A value and who said so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting<T> {
    /// The value.
    pub value: T,
    /// Who said so.
    pub origin: Origin,
}

/// Everything that can be set, as it is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Data directory.
    pub data: Setting<PathBuf>,
    /// Socket to listen at.
    pub socket: Setting<PathBuf>,
    /// The group whose members may use root's daemon; empty for none.
    pub group: Setting<String>,
    /// What is logged, as in `info,job=debug`.
    pub log: Setting<String>,
    /// What runs guests.
    pub engine: Setting<EngineChoice>,
    /// Written when requests are accepted.
    pub ready_file: Setting<Option<PathBuf>>,
    /// Jobs at a time.
    pub job_workers: Setting<usize>,
    /// How long finished jobs are remembered.
    pub job_retention: Setting<Duration>,
    /// Where WS-Management listens without TLS.
    pub wsman_http: Setting<Vec<SocketAddr>>,
    /// Where it listens with TLS.
    pub wsman_https: Setting<Vec<SocketAddr>>,
    /// Where CIM-XML listens without TLS.
    pub cimxml_http: Setting<Vec<SocketAddr>>,
    /// Where it listens with TLS.
    pub cimxml_https: Setting<Vec<SocketAddr>>,
    /// Whether a password may come over a network without TLS.
    pub wsman_allow_unencrypted: Setting<bool>,
    /// The certificate and its key, PEM; one is made where none is named.
    pub wsman_certificate: Option<(Setting<PathBuf>, Setting<PathBuf>)>,
    /// What Windows' paths of remote clients are here.
    pub cim_paths: Setting<PathMap>,
}

/// What the command line and the environment say, each with its origin.
#[derive(Clone, Debug, Default)]
pub struct Given {
    /// Data directory; absolute.
    pub data: Option<Setting<PathBuf>>,
    /// Socket; absolute.
    pub socket: Option<Setting<PathBuf>>,
    /// Log filter.
    pub log: Option<Setting<String>>,
    /// Engine.
    pub engine: Option<Setting<EngineChoice>>,
    /// Ready file; absolute.
    pub ready_file: Option<Setting<PathBuf>>,
}

/// A setting that cannot be used, and where it stands.
#[derive(Debug)]
pub struct ConfigError {
    place: String,
    message: String,
    hint: Option<String>,
}

impl ConfigError {
    fn new(place: impl fmt::Display, message: impl Into<String>) -> Self {
        Self { place: place.to_string(), message: message.into(), hint: None }
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// What to do next, if something is known to help.
    pub fn hint_text(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

impl std::error::Error for ConfigError {}

/// A configuration file, read and understood.
#[derive(Debug, Default)]
pub struct ConfigFile {
    path: PathBuf,
    text: String,
    keys: Document,
}

/// The file's keys.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    data: Option<Spanned<PathBuf>>,
    socket: Option<Spanned<PathBuf>>,
    group: Option<Spanned<String>>,
    log: Option<Spanned<String>>,
    engine: Option<Spanned<EngineChoice>>,
    ready_file: Option<Spanned<PathBuf>>,
    #[serde(default)]
    jobs: Jobs,
    #[serde(default)]
    wsman: Wsman,
    #[serde(default)]
    cimxml: CimXml,
    #[serde(default)]
    cim: Cim,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Jobs {
    workers: Option<Spanned<usize>>,
    retention: Option<Spanned<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wsman {
    http: Option<Spanned<Vec<SocketAddr>>>,
    https: Option<Spanned<Vec<SocketAddr>>>,
    allow_unencrypted: Option<Spanned<bool>>,
    certificate: Option<Spanned<PathBuf>>,
    key: Option<Spanned<PathBuf>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct CimXml {
    http: Option<Spanned<Vec<SocketAddr>>>,
    https: Option<Spanned<Vec<SocketAddr>>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cim {
    paths: Option<Spanned<BTreeMap<String, PathBuf>>>,
}

impl ConfigFile {
    /// Reads the file at `path`; one that does not exist is as good as an empty one unless it is `required`.
    ///
    /// # Errors
    /// It cannot be read, is no TOML, has a key that nobody reads, or a value of the wrong type; the place is named.
    pub fn read(path: &Path, required: bool) -> Result<Self, ConfigError> {
        let mut text = String::new();
        let read = File::open(path).and_then(|f| f.take(MAX_FILE + 1).read_to_string(&mut text));
        match read {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && !required => return Ok(Self::default()),
            Err(e) => return Err(ConfigError::new(path.display(), format!("cannot be read: {e}"))),
            Ok(_) if text.len() as u64 > MAX_FILE => {
                return Err(ConfigError::new(path.display(), format!("larger than {MAX_FILE} bytes")));
            }
            Ok(_) => {}
        }
        Self::parse(path, text)
    }

    fn parse(path: &Path, text: String) -> Result<Self, ConfigError> {
        match toml::from_str(&text) {
            Ok(keys) => Ok(Self { path: path.to_owned(), text, keys }),
            Err(e) => {
                let span = e.span().unwrap_or_default();
                let (line, column) = position(&text, span.start);
                let place = format!("{}:{line}:{column}", path.display());
                let error = ConfigError::new(place, e.message().replace('\n', " "));
                Err(match text.get(span).and_then(nearest) {
                    Some(known) => error.hint(format!("did you mean `{known}`?")),
                    None => error,
                })
            }
        }
    }

    /// The socket that it names, for clients of this daemon.
    pub fn socket(&self) -> Option<&Path> {
        self.keys.socket.as_ref().map(|s| s.get_ref().as_path())
    }

    /// The value of a key of this file as a setting.
    fn setting<T: Clone>(&self, value: &Option<Spanned<T>>) -> Option<Setting<T>> {
        let value = value.as_ref()?;
        let (line, _) = position(&self.text, value.span().start);
        let origin = Origin::File { path: self.path.clone(), line };
        Some(Setting { value: value.get_ref().clone(), origin })
    }

    /// As [`Self::setting`], of a path: relative to what would be anybody's guess.
    fn path(
        &self,
        key: &str,
        value: &Option<Spanned<PathBuf>>,
    ) -> Result<Option<Setting<PathBuf>>, ConfigError> {
        match self.setting(value) {
            Some(s) if !s.value.is_absolute() => {
                let message = format!("`{key}` must be an absolute path, not `{}`", s.value.display());
                Err(ConfigError::new(s.origin, message))
            }
            other => Ok(other),
        }
    }
}

/// Line and column, both from 1, of a byte of `text`.
fn position(text: &str, byte: usize) -> (usize, usize) {
    let before = text.get(..byte).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    (line, column)
}

/// The known key that `word` is a slip of.
fn nearest(word: &str) -> Option<&'static str> {
    let names = KEYS.iter().map(|k| k.rsplit('.').next().unwrap_or(k));
    names
        .map(|name| (strsim::jaro_winkler(word, name), name))
        .filter(|(likeness, name)| *likeness >= MIN_LIKENESS && *name != word)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

impl Settings {
    /// What is in force: `given` before `file` before the defaults, of which `data` and `socket` depend on who runs the
    /// daemon. `data` is `None` where there is no home to keep it in.
    ///
    /// # Errors
    /// A value breaks a rule, or there is no place for data.
    pub fn resolve(
        file: &ConfigFile,
        given: Given,
        data: Option<PathBuf>,
        socket: PathBuf,
    ) -> Result<Self, ConfigError> {
        let keys = &file.keys;
        let data = match (given.data, file.path("data", &keys.data)?, data) {
            (Some(said), _, _) | (None, Some(said), _) => said,
            (None, None, Some(value)) => Setting { value, origin: Origin::Default },
            (None, None, None) => {
                return Err(ConfigError::new("data", "there is no home directory to keep data in")
                    .hint("name a directory with --data"));
            }
        };
        let ready_file = given.ready_file.or(file.path("ready_file", &keys.ready_file)?);
        let ready_file = ready_file.map(|s| Setting { value: Some(s.value), origin: s.origin });
        let settings = Self {
            data,
            socket: choose(given.socket, file.path("socket", &keys.socket)?, socket),
            group: choose(None, file.setting(&keys.group), peers::GROUP.to_owned()),
            log: choose(given.log, file.setting(&keys.log), log::DEFAULT_FILTER.to_owned()),
            engine: choose(given.engine, file.setting(&keys.engine), EngineChoice::Qemu),
            ready_file: choose(ready_file, None, None),
            job_workers: choose(None, file.setting(&keys.jobs.workers), job::Options::default().workers),
            job_retention: match file.setting(&keys.jobs.retention) {
                Some(said) => Setting { value: retention(&said)?, origin: said.origin },
                None => Setting { value: RETENTION, origin: Origin::Default },
            },
            wsman_http: choose(None, file.setting(&keys.wsman.http), Vec::new()),
            wsman_https: choose(None, file.setting(&keys.wsman.https), Vec::new()),
            cimxml_http: choose(None, file.setting(&keys.cimxml.http), Vec::new()),
            cimxml_https: choose(None, file.setting(&keys.cimxml.https), Vec::new()),
            wsman_allow_unencrypted: choose(None, file.setting(&keys.wsman.allow_unencrypted), false),
            wsman_certificate: match (
                file.path("wsman.certificate", &keys.wsman.certificate)?,
                file.path("wsman.key", &keys.wsman.key)?,
            ) {
                (Some(certificate), Some(key)) => Some((certificate, key)),
                (None, None) => None,
                (Some(one), None) | (None, Some(one)) => {
                    let message = "`wsman.certificate` and `wsman.key` belong together";
                    return Err(ConfigError::new(one.origin, message)
                        .hint("name both, or none: then a certificate is made at the first start"));
                }
            },
            cim_paths: match file.setting(&keys.cim.paths) {
                Some(said) => Setting { value: windows_paths(&said)?, origin: said.origin },
                None => Setting { value: PathMap::default(), origin: Origin::Default },
            },
        };
        settings.check()?;
        Ok(settings)
    }

    fn check(&self) -> Result<(), ConfigError> {
        log::check_filter(&self.log.value).map_err(|why| {
            ConfigError::new(&self.log.origin, why).hint("such as `info`, or `info,job=debug`")
        })?;
        let workers = &self.job_workers;
        if !(1..=MAX_WORKERS).contains(&workers.value) {
            let message = format!("`jobs.workers` must be 1 to {MAX_WORKERS}, not {}", workers.value);
            return Err(ConfigError::new(&workers.origin, message));
        }
        let group = &self.group;
        // The default one is used where it is; another is named because it is meant to be there.
        let named = ![peers::GROUP, ""].contains(&group.value.as_str());
        if named && !peers::group_exists(&group.value) {
            let message = format!("this host has no group `{}` in /etc/group", group.value);
            return Err(ConfigError::new(&group.origin, message)
                .hint(format!("make it: groupadd --system {}; or name none: group = \"\"", group.value)));
        }
        Ok(())
    }

    /// Every key with its value as TOML and its origin, in the order of the sample file. A setting without a value is
    /// left out.
    pub fn list(&self) -> Vec<(&'static str, String, &Origin)> {
        let text = |s: &str| toml::Value::from(s).to_string();
        let path = |p: &Path| text(&p.to_string_lossy());
        let ready_file = self.ready_file.value.as_deref();
        let mut list = vec![
            ("data", path(&self.data.value), &self.data.origin),
            ("socket", path(&self.socket.value), &self.socket.origin),
            ("group", text(&self.group.value), &self.group.origin),
            ("log", text(&self.log.value), &self.log.origin),
            ("engine", text(self.engine.value.as_str()), &self.engine.origin),
        ];
        list.extend(ready_file.map(|file| ("ready_file", path(file), &self.ready_file.origin)));
        let retention = jiff::SignedDuration::try_from(self.job_retention.value).unwrap_or_default();
        list.extend([
            ("jobs.workers", self.job_workers.value.to_string(), &self.job_workers.origin),
            ("jobs.retention", text(&format!("{retention:#}")), &self.job_retention.origin),
        ]);
        let addresses = |at: &[SocketAddr]| {
            toml::Value::from(at.iter().map(SocketAddr::to_string).collect::<Vec<_>>()).to_string()
        };
        list.extend([
            ("wsman.http", addresses(&self.wsman_http.value), &self.wsman_http.origin),
            ("wsman.https", addresses(&self.wsman_https.value), &self.wsman_https.origin),
        ]);
        let unencrypted = &self.wsman_allow_unencrypted;
        list.push(("wsman.allow_unencrypted", unencrypted.value.to_string(), &unencrypted.origin));
        if let Some((certificate, key)) = &self.wsman_certificate {
            list.push(("wsman.certificate", path(&certificate.value), &certificate.origin));
            list.push(("wsman.key", path(&key.value), &key.origin));
        }
        list.extend([
            ("cimxml.http", addresses(&self.cimxml_http.value), &self.cimxml_http.origin),
            ("cimxml.https", addresses(&self.cimxml_https.value), &self.cimxml_https.origin),
        ]);
        let mut roots = self.cim_paths.value.roots().peekable();
        if roots.peek().is_some() {
            let one = |root: &Root| format!("{} = {}", text(&root.windows), path(&root.folder));
            let all: Vec<_> = roots.map(one).collect();
            list.push(("cim.paths", format!("{{ {} }}", all.join(", ")), &self.cim_paths.origin));
        }
        list
    }

    /// What a daemon with these settings is told.
    pub fn options(self) -> ServiceOptions {
        ServiceOptions {
            data: self.data.value,
            temporary: false,
            socket: self.socket.value,
            group: Some(self.group.value).filter(|g| !g.is_empty()),
            engine: self.engine.value,
            ready_file: self.ready_file.value,
            scenario: None,
            notify_socket: None,
            job_workers: self.job_workers.value,
            job_retention: self.job_retention.value,
            remote: Remote {
                wsman: Addresses { http: self.wsman_http.value, https: self.wsman_https.value },
                cimxml: Addresses { http: self.cimxml_http.value, https: self.cimxml_https.value },
                allow_unencrypted: self.wsman_allow_unencrypted.value,
                certificate: self.wsman_certificate.map(|(certificate, key)| (certificate.value, key.value)),
                paths: self.cim_paths.value,
            },
        }
    }
}

fn choose<T>(given: Option<Setting<T>>, file: Option<Setting<T>>, default: T) -> Setting<T> {
    given.or(file).unwrap_or(Setting { value: default, origin: Origin::Default })
}

fn windows_paths(said: &Setting<BTreeMap<String, PathBuf>>) -> Result<PathMap, ConfigError> {
    let root =
        |(windows, folder): (&String, &PathBuf)| Root { windows: windows.clone(), folder: folder.clone() };
    PathMap::new(said.value.iter().map(root).collect()).map_err(|e| {
        ConfigError::new(&said.origin, e.chain())
            .hint(r#"as in paths = { "C:" = "/srv/slipway", '\\nas\vm' = "/mnt/nas" }"#)
    })
}

/// A time as people write it: `7d`, `36h`, `2 weeks`.
fn retention(said: &Setting<String>) -> Result<Duration, ConfigError> {
    let wrong = |why: String| {
        ConfigError::new(&said.origin, format!("`jobs.retention`: {why}")).hint("such as \"7d\" or \"36h\"")
    };
    let span: jiff::Span =
        said.value.parse().map_err(|e| wrong(format!("`{}` is no time: {e}", said.value)))?;
    let time = span
        .to_duration(jiff::SpanRelativeTo::days_are_24_hours())
        .map_err(|e| wrong(format!("`{}` is not told in weeks, days or hours: {e}", said.value)))?;
    let time = Duration::try_from(time).map_err(|_| wrong("a time is not negative".to_owned()))?;
    if time > MAX_RETENTION {
        return Err(wrong(format!("`{}` is more than ten years", said.value)));
    }
    Ok(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: &str = "/etc/slipway/config.toml";

    fn file(text: &str) -> Result<ConfigFile, ConfigError> {
        ConfigFile::parse(Path::new(PLACE), text.to_owned())
    }

    fn resolve(text: &str) -> Result<Settings, ConfigError> {
        Settings::resolve(&file(text)?, Given::default(), Some("/d".into()), "/s".into())
    }

    fn said(text: &str) -> (String, Option<String>) {
        let error = resolve(text).unwrap_err();
        (error.to_string(), error.hint_text().map(str::to_owned))
    }

    #[test]
    fn a_value_is_the_command_lines_then_the_environments_then_the_files_then_the_default() {
        let file =
            file("data = '/file'\nsocket = '/file.sock'\n\nlog = 'warn'\n[jobs]\nretention = '36h'").unwrap();
        let given = Given {
            data: Some(Setting { value: "/option".into(), origin: Origin::Option("--data") }),
            log: Some(Setting { value: "debug".to_owned(), origin: Origin::Variable("SLIPWAY_LOG") }),
            ..Given::default()
        };
        let s = Settings::resolve(&file, given, Some("/default".into()), "/default.sock".into()).unwrap();
        let shown: Vec<_> = s.list().into_iter().map(|(k, v, o)| format!("{k} = {v} # {o}")).collect();
        assert_eq!(
            shown,
            [
                "data = \"/option\" # --data",
                "socket = \"/file.sock\" # /etc/slipway/config.toml:2",
                "group = \"slipway\" # default",
                "log = \"debug\" # SLIPWAY_LOG",
                "engine = \"qemu\" # default",
                "jobs.workers = 4 # default",
                "jobs.retention = \"36h\" # /etc/slipway/config.toml:6",
                "wsman.http = [] # default",
                "wsman.https = [] # default",
                "wsman.allow_unencrypted = false # default",
                "cimxml.http = [] # default",
                "cimxml.https = [] # default",
            ]
        );
        // What is shown is what would be read.
        assert_eq!(resolve(&shown.join("\n")).unwrap().job_retention.value, Duration::from_secs(36 * 3600));
    }

    #[test]
    fn a_key_that_nobody_reads_is_refused_with_its_place_and_the_nearest_one() {
        let (message, hint) = said("data = '/d'\n  soket = '/s'\n");
        assert!(message.starts_with("/etc/slipway/config.toml:2:3: unknown field `soket`"), "{message}");
        assert_eq!(hint.unwrap(), "did you mean `socket`?");
        let (message, hint) = said("[jobs]\nworkers = 2\nretension = '1d'\n");
        assert!(message.contains(":3:1: ") && message.contains("retension"), "{message}");
        assert_eq!(hint.unwrap(), "did you mean `retention`?");
        let (message, hint) = said("colour = 'red'\n");
        assert!(message.contains(":1:1: "), "{message}");
        assert_eq!(hint, None);
    }

    #[test]
    fn a_value_that_cannot_be_used_is_refused_with_its_place() {
        for (text, place, part) in [
            ("log = 3\n", ":1:7: ", "invalid type"),
            ("data = '/d'\ndata = '/e'\n", ":2:", "duplicate"),
            ("data = '/d\n", ":1:", ""),
            ("engine = 'quemu'\n", ":1:10: ", "qemu"),
            ("\ndata = 'here'\n", ":2: ", "absolute"),
            ("log = 'job=loud=3'\n", ":1: ", "log filter"),
            ("[jobs]\nworkers = 0\n", ":2: ", "1 to 64"),
            ("[jobs]\nworkers = -1\n", ":2:", ""),
            ("[jobs]\nretention = 'soon'\n", ":2: ", "retention"),
            ("[jobs]\nretention = '-1d'\n", ":2: ", "negative"),
            ("[jobs]\nretention = '99y'\n", ":2: ", "retention"),
            ("group = 'no-such-group-here'\n", ":1: ", "no group"),
            ("[wsman]\nhttp = ['localhost']\n", ":2:", "address"),
            ("[wsman]\ncertificate = '/c.pem'\n", ":2: ", "belong together"),
            ("[cim]\npaths = { 'CC:' = '/srv' }\n", ":2: ", "neither a drive"),
            ("[cim]\npaths = { 'C:' = 'srv' }\n", ":2: ", "absolute"),
        ] {
            let (message, _) = said(text);
            assert!(
                message.contains(&format!("{PLACE}{place}")) && message.contains(part),
                "{text}: {message}"
            );
        }
        assert!(resolve("group = ''").unwrap().options().group.is_none());
    }

    #[test]
    fn a_file_that_must_be_there_is_missed_and_another_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        assert!(ConfigFile::read(&path, false).is_ok());
        assert!(ConfigFile::read(&path, true).unwrap_err().to_string().contains("config.toml"));
        std::fs::write(&path, vec![b'#'; MAX_FILE as usize + 1]).unwrap();
        assert!(ConfigFile::read(&path, true).unwrap_err().to_string().contains("larger"));
        std::fs::write(&path, [0xff]).unwrap();
        assert!(ConfigFile::read(&path, true).is_err());
    }

    /// The sample says what the defaults are: every key is in it, commented out, with its default.
    #[test]
    fn the_sample_shows_every_setting_with_its_default() {
        let sample = include_str!("../../../packaging/config.toml");
        assert_eq!(
            file(sample).unwrap().keys.data.map(Spanned::into_inner),
            None,
            "all of it is commented out"
        );
        // A commented setting is `#key = value`; prose is `# words`.
        let uncommented: String = sample
            .lines()
            .map(|l| l.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(l))
            .map(|l| format!("{l}\n"))
            .collect();
        let shown = file(&uncommented).unwrap();
        let root = |given| {
            Settings::resolve(
                &ConfigFile::default(),
                given,
                crate::default_data(0, None, None),
                crate::system_socket(),
            )
        };
        let defaults = root(Given::default()).unwrap();
        let Document { data, socket, group, log, engine, ready_file, jobs, wsman, cimxml, cim } = &shown.keys;
        assert_eq!(data.as_ref().unwrap().get_ref(), &defaults.data.value);
        assert_eq!(socket.as_ref().unwrap().get_ref(), &defaults.socket.value);
        assert_eq!(group.as_ref().unwrap().get_ref(), &defaults.group.value);
        assert_eq!(log.as_ref().unwrap().get_ref(), &defaults.log.value);
        assert_eq!(engine.as_ref().unwrap().get_ref(), &defaults.engine.value);
        assert!(ready_file.is_some() && defaults.ready_file.value.is_none());
        assert_eq!(jobs.workers.as_ref().unwrap().get_ref(), &defaults.job_workers.value);
        let said = shown.setting(&jobs.retention).unwrap();
        assert_eq!(retention(&said).unwrap(), defaults.job_retention.value);
        assert!(wsman.http.is_some() && defaults.wsman_http.value.is_empty());
        assert!(wsman.https.is_some() && defaults.wsman_https.value.is_empty());
        assert!(cimxml.http.is_some() && defaults.cimxml_http.value.is_empty());
        assert!(cimxml.https.is_some() && defaults.cimxml_https.value.is_empty());
        assert!(wsman.certificate.is_some() && wsman.key.is_some() && defaults.wsman_certificate.is_none());
        assert_eq!(
            wsman.allow_unencrypted.as_ref().unwrap().get_ref(),
            &defaults.wsman_allow_unencrypted.value
        );
        let paths = windows_paths(&shown.setting(&cim.paths).unwrap()).unwrap();
        assert_eq!(paths.roots().count(), 2, "a drive and a share are shown");
        for key in KEYS {
            let name = key.rsplit('.').next().unwrap();
            assert!(
                sample.contains(&format!("\n#{name} = ")) || sample.contains(&format!("\n[{name}]")),
                "{key}"
            );
        }
    }
}
