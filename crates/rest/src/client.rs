//! The client: one typed method per route, over the daemon's Unix socket.
//!
//! Each call is a connection of its own: a Unix socket costs next to nothing, and nothing has to be kept alive. Long
//! calls (a shutdown, a long poll) wait as long as the server does. Absolute paths and what to print are the caller's
//! part.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use uuid::Uuid;

use crate::wire::{
    Advance, Autostop, AutostopReport, Autostopped, Behaviour, Cleared, Console, CreateSwitch, Define,
    Doctor, Edit, EventList, Export, Fault, FaultList, Import, Job, JobList, JobReference, Machine,
    MachineList, MapSwitch, NewEvent, NewFault, NewUser, Planned, PlannedEdit, PlannedList, Problem,
    ProblemBody, Reset, SendKeys, SetClock, Shutdown, Simulator, SimulatorClock, Switch, SwitchList, User,
    UserEdit, UserList, Version,
};

/// Largest answer that is read, in bytes.
const MAX_ANSWER: usize = 128 << 20;

/// A client of one daemon.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
    owners: Option<Vec<u32>>,
}

/// Why a call failed.
#[derive(Debug)]
pub enum ClientError {
    /// No daemon answers at the socket.
    Unreachable {
        /// The socket.
        socket: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// The daemon refused or failed.
    Problem {
        /// HTTP status.
        status: u16,
        /// Its own words.
        problem: ProblemBody,
    },
    /// The connection broke, or the answer is not one.
    Protocol {
        /// What was being done.
        doing: String,
        /// Why it failed.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable { socket, .. } => write!(f, "no daemon answers at `{}`", socket.display()),
            Self::Problem { problem, .. } => f.write_str(&problem.message),
            Self::Protocol { doing, .. } => write!(f, "cannot {doing}"),
        }
    }
}

impl std::error::Error for ClientError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unreachable { source, .. } => Some(source),
            Self::Problem { .. } => None,
            Self::Protocol { source, .. } => Some(&**source),
        }
    }
}

impl ClientError {
    /// What to do next, if something is known to help.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Unreachable { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some("the daemon belongs to another user: run as that user, or name your own with --socket")
            }
            Self::Unreachable { .. } => {
                Some("start one with `slipway serve`, or name its socket with --socket")
            }
            Self::Problem { problem, .. } => problem.hint.as_deref(),
            Self::Protocol { .. } => None,
        }
    }
}

type Result<T> = std::result::Result<T, ClientError>;

/// Which jobs to list; the default is all.
#[derive(Clone, Debug, Default)]
pub struct JobFilter {
    /// `import`, `export`, `save`, `change` and so on.
    pub kind: Option<String>,
    /// Name or id of a machine or planned machine.
    pub machine: Option<String>,
    /// Only finished ones, or only those that are not.
    pub finished: Option<bool>,
}

/// A picture of a display.
#[derive(Clone, Debug)]
pub struct Picture {
    /// The file.
    pub bytes: Vec<u8>,
    /// `image/png` or `image/x-portable-pixmap`.
    pub media_type: String,
}

impl Client {
    /// A client of the daemon that listens on `socket`. Nothing is connected yet.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into(), owners: None }
    }

    /// Talks only to a daemon of one of these users: in a directory that others can write to, the socket may be theirs.
    #[must_use]
    pub fn trusting(mut self, uids: &[u32]) -> Self {
        self.owners = Some(uids.to_vec());
        self
    }

    /// The socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<(StatusCode, String, Bytes)> {
        let unreachable = |source| ClientError::Unreachable { socket: self.socket.clone(), source };
        let stream = UnixStream::connect(&self.socket).await.map_err(unreachable)?;
        if let Some(owners) = &self.owners {
            let owner = stream.peer_cred().map_err(unreachable)?.uid();
            if !owners.contains(&owner) {
                let why = format!("it belongs to another user (uid {owner}), who is not trusted");
                return Err(unreachable(io::Error::new(io::ErrorKind::PermissionDenied, why)));
            }
        }
        let broken = |doing: &str, e: Box<dyn std::error::Error + Send + Sync>| ClientError::Protocol {
            doing: doing.to_owned(),
            source: e,
        };
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|e| broken("talk to the daemon", e.into()))?;
        // Ends with the sender; an error of its own is the request's error too.
        let connection = tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "slipway")
            .header(header::USER_AGENT, concat!("slipway/", env!("CARGO_PKG_VERSION")))
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body.unwrap_or_default())))
            .map_err(|e| broken("make the request", e.into()))?;
        let response =
            sender.send_request(request).await.map_err(|e| broken("talk to the daemon", e.into()))?;
        let status = response.status();
        let media_type = response.headers().get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok());
        let media_type = media_type.unwrap_or_default().to_owned();
        let bytes = Limited::new(response.into_body(), MAX_ANSWER)
            .collect()
            .await
            .map_err(|e| broken("read the daemon's answer", e))?
            .to_bytes();
        drop(sender);
        connection.abort();
        Ok((status, media_type, bytes))
    }

    async fn call(&self, method: Method, path: &str, body: Option<Vec<u8>>) -> Result<(String, Bytes)> {
        let (status, media_type, bytes) = self.send(method, path, body).await?;
        if status.is_success() {
            return Ok((media_type, bytes));
        }
        let problem = match serde_json::from_slice::<Problem>(&bytes) {
            Ok(problem) => problem.error,
            Err(_) => ProblemBody {
                id: "internal".to_owned(),
                message: format!("the daemon answered {status} and no reason"),
                hint: None,
            },
        };
        Err(ClientError::Problem { status: status.as_u16(), problem })
    }

    async fn ask<T: DeserializeOwned>(&self, method: Method, path: &str, body: Option<Vec<u8>>) -> Result<T> {
        let (_, bytes) = self.call(method, path, body).await?;
        serde_json::from_slice(&bytes).map_err(|e| ClientError::Protocol {
            doing: format!("understand the daemon's answer to `{path}`; is it of another version?"),
            source: e.into(),
        })
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.ask(Method::GET, path, None).await
    }

    async fn put<B: Serialize, T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &B,
    ) -> Result<T> {
        self.ask(method, path, Some(json(body)?)).await
    }

    async fn delete(&self, path: &str) -> Result<()> {
        self.call(Method::DELETE, path, None).await.map(drop)
    }

    /// `GET /v1`.
    ///
    /// # Errors
    /// See [`ClientError`], here and below.
    pub async fn version(&self) -> Result<Version> {
        self.get("/v1").await
    }

    /// `GET /v1/doctor`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn doctor(&self) -> Result<Doctor> {
        self.get("/v1/doctor").await
    }

    /// The host in numbers, in Prometheus' text format.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn metrics(&self) -> Result<String> {
        let (_, bytes) = self.call(Method::GET, "/metrics", None).await?;
        String::from_utf8(bytes.into())
            .map_err(|e| ClientError::Protocol { doing: "read the metrics".to_owned(), source: e.into() })
    }

    /// Every machine.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn machines(&self) -> Result<Vec<Machine>> {
        Ok(self.get::<MachineList>("/v1/machines").await?.machines)
    }

    /// The machine that `word` names.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn machine(&self, word: &str) -> Result<Machine> {
        self.get(&path("/v1/machines", word, "")).await
    }

    /// Makes a machine.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn define(&self, define: &Define) -> Result<Machine> {
        self.put(Method::POST, "/v1/machines", define).await
    }

    /// Changes a machine.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn edit(&self, word: &str, edit: &Edit) -> Result<Machine> {
        self.put(Method::PATCH, &path("/v1/machines", word, ""), edit).await
    }

    /// Deletes a machine.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn delete_machine(&self, word: &str, keep_disks: bool) -> Result<()> {
        self.delete(&format!("{}?keep_disks={keep_disks}", path("/v1/machines", word, ""))).await
    }

    /// Does `verb` to a machine: `start`, `stop`, `pause`, `resume` or `reset`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn act(&self, word: &str, verb: &str) -> Result<Machine> {
        self.ask(Method::POST, &path("/v1/machines", word, verb), None).await
    }

    /// Asks a machine's guest to shut down and waits for it.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn shutdown(&self, word: &str, shutdown: &Shutdown) -> Result<Machine> {
        self.put(Method::POST, &path("/v1/machines", word, "shutdown"), shutdown).await
    }

    /// Saves a machine; the job's id.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn save(&self, word: &str) -> Result<Uuid> {
        Ok(self.ask::<JobReference>(Method::POST, &path("/v1/machines", word, "save"), None).await?.job)
    }

    /// Brings every machine to rest as its stop action says.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn autostop(&self, how: &Autostop) -> Result<Vec<Autostopped>> {
        Ok(self.put::<_, AutostopReport>(Method::POST, "/v1/autostop", how).await?.machines)
    }

    /// Where a machine's console is.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn console(&self, word: &str) -> Result<Console> {
        self.get(&path("/v1/machines", word, "console")).await
    }

    /// What a machine's display shows.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn screenshot(&self, word: &str) -> Result<Picture> {
        let (media_type, bytes) =
            self.call(Method::GET, &path("/v1/machines", word, "screenshot"), None).await?;
        Ok(Picture { bytes: bytes.into(), media_type })
    }

    /// Types on a machine's keyboard.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn send_keys(&self, word: &str, keys: &SendKeys) -> Result<()> {
        self.call(Method::POST, &path("/v1/machines", word, "keys"), Some(json(keys)?)).await.map(drop)
    }

    /// Exports a machine; the job's id.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn export(&self, word: &str, export: &Export) -> Result<Uuid> {
        Ok(self
            .put::<_, JobReference>(Method::POST, &path("/v1/machines", word, "export"), export)
            .await?
            .job)
    }

    /// Every planned machine.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn planned(&self) -> Result<Vec<Planned>> {
        Ok(self.get::<PlannedList>("/v1/planned").await?.planned)
    }

    /// The planned machine that `word` names.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn planned_machine(&self, word: &str) -> Result<Planned> {
        self.get(&path("/v1/planned", word, "")).await
    }

    /// Imports a package as a planned machine, or only reports.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn import(&self, import: &Import) -> Result<Planned> {
        self.put(Method::POST, "/v1/planned", import).await
    }

    /// Changes a planned machine.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn edit_planned(&self, word: &str, edit: &PlannedEdit) -> Result<Planned> {
        self.put(Method::PATCH, &path("/v1/planned", word, ""), edit).await
    }

    /// Validates a planned machine again.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn validate(&self, word: &str) -> Result<Planned> {
        self.ask(Method::POST, &path("/v1/planned", word, "validate"), None).await
    }

    /// Makes a planned machine a machine; the job's id.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn realize(&self, word: &str) -> Result<Uuid> {
        Ok(self.ask::<JobReference>(Method::POST, &path("/v1/planned", word, "realize"), None).await?.job)
    }

    /// Forgets a planned machine.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn abandon(&self, word: &str) -> Result<()> {
        self.delete(&path("/v1/planned", word, "")).await
    }

    /// Every switch.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn switches(&self) -> Result<Vec<Switch>> {
        Ok(self.get::<SwitchList>("/v1/switches").await?.switches)
    }

    /// The switch that `word` names.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn switch(&self, word: &str) -> Result<Switch> {
        self.get(&path("/v1/switches", word, "")).await
    }

    /// Makes a switch.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn create_switch(&self, create: &CreateSwitch) -> Result<Switch> {
        self.put(Method::POST, "/v1/switches", create).await
    }

    /// Lets a switch answer to a name of another host.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn map_switch(&self, word: &str, map: &MapSwitch) -> Result<Switch> {
        self.put(Method::POST, &path("/v1/switches", word, "map"), map).await
    }

    /// Deletes a switch.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn delete_switch(&self, word: &str) -> Result<()> {
        self.delete(&path("/v1/switches", word, "")).await
    }

    /// Every user.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn users(&self) -> Result<Vec<User>> {
        Ok(self.get::<UserList>("/v1/users").await?.users)
    }

    /// The user of that name.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn user(&self, name: &str) -> Result<User> {
        self.get(&path("/v1/users", name, "")).await
    }

    /// Adds a user.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn add_user(&self, new: &NewUser) -> Result<User> {
        self.put(Method::POST, "/v1/users", new).await
    }

    /// Changes a user.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn edit_user(&self, name: &str, edit: &UserEdit) -> Result<User> {
        self.put(Method::PATCH, &path("/v1/users", name, ""), edit).await
    }

    /// Removes a user.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn remove_user(&self, name: &str) -> Result<()> {
        self.delete(&path("/v1/users", name, "")).await
    }

    /// Jobs, newest first.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn jobs(&self, filter: &JobFilter) -> Result<Vec<Job>> {
        let mut query = Vec::new();
        query.extend(filter.kind.as_deref().map(|k| format!("kind={}", encode(k))));
        query.extend(filter.machine.as_deref().map(|m| format!("machine={}", encode(m))));
        query.extend(filter.finished.map(|f| format!("finished={f}")));
        Ok(self.get::<JobList>(&format!("/v1/jobs?{}", query.join("&"))).await?.jobs)
    }

    /// The job that `word` names.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn job(&self, word: &str) -> Result<Job> {
        self.get(&path("/v1/jobs", word, "")).await
    }

    /// The job that `word` names as soon as it is newer than `generation` or over; as it is when `seconds` have passed.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn job_after(&self, word: &str, generation: u64, seconds: u64) -> Result<Job> {
        let base = path("/v1/jobs", word, "");
        self.get(&format!("{base}?generation={generation}&wait_seconds={seconds}")).await
    }

    /// Asks for a job's end.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn cancel(&self, word: &str) -> Result<Job> {
        self.ask(Method::POST, &path("/v1/jobs", word, "cancel"), None).await
    }

    /// Gives up a parked job.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn discard(&self, word: &str) -> Result<Job> {
        self.ask(Method::POST, &path("/v1/jobs", word, "discard"), None).await
    }

    /// The simulation: seed, clock, guests.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn simulator(&self) -> Result<Simulator> {
        self.get("/v1/simulator").await
    }

    /// The simulator's clock.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn clock(&self) -> Result<SimulatorClock> {
        self.get("/v1/simulator/clock").await
    }

    /// Changes what moves the simulator's clock, or moves it to a moment.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn set_clock(&self, set: &SetClock) -> Result<SimulatorClock> {
        self.put(Method::PUT, "/v1/simulator/clock", set).await
    }

    /// Moves the simulator's clock on.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn advance(&self, by: &Advance) -> Result<SimulatorClock> {
        self.put(Method::POST, "/v1/simulator/clock/advance", by).await
    }

    /// Every fault.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn faults(&self) -> Result<Vec<Fault>> {
        Ok(self.get::<FaultList>("/v1/simulator/faults").await?.faults)
    }

    /// Lets something go wrong.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn add_fault(&self, fault: &NewFault) -> Result<Fault> {
        self.put(Method::POST, "/v1/simulator/faults", fault).await
    }

    /// Clears a fault, or all of them.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn clear_faults(&self, id: Option<u64>) -> Result<Cleared> {
        let one = id.map_or_else(String::new, |id| format!("/{id}"));
        self.ask(Method::DELETE, &format!("/v1/simulator/faults{one}"), None).await
    }

    /// Events that wait for their time.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn simulated_events(&self) -> Result<EventList> {
        self.get("/v1/simulator/events").await
    }

    /// Lets a guest do something; what waits for its time then.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn simulate(&self, event: &NewEvent) -> Result<EventList> {
        self.put(Method::POST, "/v1/simulator/events", event).await
    }

    /// Takes back all events that wait.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn cancel_simulated_events(&self) -> Result<Cleared> {
        self.ask(Method::DELETE, "/v1/simulator/events", None).await
    }

    /// Lets a machine's guests behave so.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn behave(&self, word: &str, behaviour: &Behaviour) -> Result<Behaviour> {
        self.put(Method::PATCH, &path("/v1/simulator/guests", word, ""), behaviour).await
    }

    /// Begins the simulation anew.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn reset_simulator(&self, reset: &Reset) -> Result<Simulator> {
        self.put(Method::POST, "/v1/simulator/reset", reset).await
    }
}

fn json<B: Serialize>(body: &B) -> Result<Vec<u8>> {
    serde_json::to_vec(body)
        .map_err(|e| ClientError::Protocol { doing: "write the request".to_owned(), source: e.into() })
}

fn path(collection: &str, word: &str, tail: &str) -> String {
    let slash = if tail.is_empty() { "" } else { "/" };
    format!("{collection}/{}{slash}{tail}", encode(word))
}

/// `text` as one segment of a path or value of a query: everything but unreserved characters as `%XX`.
fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    // A segment must not be empty or a dot, which mean something else in a path.
    let dots = !text.is_empty() && text.bytes().all(|b| b == b'.');
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_~".contains(&byte) || (byte == b'.' && !dots) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    if out.is_empty() { "%20".to_owned() } else { out }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_travel_as_one_path_segment() {
        for (name, encoded) in [
            ("web", "web"),
            ("a b/c", "a%20b%2Fc"),
            ("100%", "100%25"),
            ("日本", "%E6%97%A5%E6%9C%AC"),
            ("..", "%2E%2E"),
            ("a.b", "a.b"),
            ("", "%20"),
        ] {
            assert_eq!(encode(name), encoded);
        }
    }
}
