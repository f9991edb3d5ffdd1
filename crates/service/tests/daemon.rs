//! The daemon from start to stop, with guests that only pretend.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers may fail as tests do")]

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::thread::JoinHandle;
use std::time::Duration;

use rest::client::{Client, ClientError};
use rest::wire::Define;
use service::{EngineChoice, ServeError, ServeErrorKind, ServiceOptions, run_until};
use tokio::sync::oneshot;

fn options(dir: &Path, data: &str, socket: &str) -> ServiceOptions {
    ServiceOptions {
        data: dir.join(data),
        temporary: false,
        socket: dir.join(socket),
        group: None,
        engine: EngineChoice::Sim,
        ready_file: Some(dir.join(format!("{socket}.ready"))),
        scenario: None,
        notify_socket: None,
        job_workers: 4,
        job_retention: Duration::from_secs(3600),
        remote: service::Remote::default(),
    }
}

struct Daemon {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<Result<(), ServeError>>,
}

/// Runs a daemon in a thread; returns when it says that it is ready.
fn start(mut options: ServiceOptions) -> Daemon {
    let notify = options.socket.with_extension("notify");
    let _ = std::fs::remove_file(&notify);
    let told = UnixDatagram::bind(&notify).unwrap();
    options.notify_socket = Some(notify.into());
    let (stop, stopped) = oneshot::channel();
    let thread = std::thread::spawn(move || {
        run_until(&options, || async {
            let _ = stopped.await;
        })
    });
    let mut buffer = [0; 256];
    let n = told.recv(&mut buffer).unwrap();
    assert!(buffer[..n].starts_with(b"READY=1"));
    Daemon { stop, thread }
}

impl Daemon {
    fn stop(self) {
        self.stop.send(()).unwrap();
        self.thread.join().unwrap().unwrap();
    }
}

fn ask<T>(socket: &Path, work: impl AsyncFnOnce(Client) -> Result<T, ClientError>) -> Result<T, ClientError> {
    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio.block_on(work(Client::new(socket)))
}

#[test]
fn a_daemon_starts_serves_stops_and_finds_everything_again() {
    let dir = tempfile::tempdir().unwrap();
    let first = options(dir.path(), "data", "a.sock");
    let daemon = start(first.clone());
    assert!(first.ready_file.as_ref().unwrap().exists());
    let machine = ask(&first.socket, async |c| {
        let machine = c.define(&Define { name: "web".to_owned(), ..Define::default() }).await?;
        c.act("web", "start").await?;
        Ok(machine)
    })
    .unwrap();
    daemon.stop();
    assert!(!first.socket.exists() && !first.ready_file.unwrap().exists());
    assert!(matches!(ask(&first.socket, async |c| c.machines().await), Err(ClientError::Unreachable { .. })));

    let second = options(dir.path(), "data", "b.sock");
    let daemon = start(second.clone());
    let again = ask(&second.socket, async |c| c.machine("web").await).unwrap();
    assert_eq!((again.id, again.state.as_str()), (machine.id, "running"), "its guest outlived the daemon");
    daemon.stop();
}

#[test]
fn a_second_daemon_is_refused_by_the_data_and_by_the_socket() {
    let dir = tempfile::tempdir().unwrap();
    let first = options(dir.path(), "data", "a.sock");
    let daemon = start(first.clone());
    let same_data =
        run_until(&options(dir.path(), "data", "b.sock"), std::future::pending::<()>).unwrap_err();
    assert_eq!(same_data.kind(), ServeErrorKind::Running);
    assert!(same_data.hint_text().is_some());
    assert!(!dir.path().join("b.sock").exists());
    let same_socket =
        run_until(&options(dir.path(), "other", "a.sock"), std::future::pending::<()>).unwrap_err();
    assert_eq!(same_socket.kind(), ServeErrorKind::Running);
    // The refused ones took nothing from the one that runs.
    assert_eq!(ask(&first.socket, async |c| c.version().await).unwrap().api, "v1");
    daemon.stop();
}

#[test]
fn data_that_is_no_store_is_told_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path(), "data", "a.sock");
    std::fs::create_dir(&options.data).unwrap();
    let file = options.data.join("slipway.db");
    std::fs::write(&file, vec![7; 8192]).unwrap();
    let refused = run_until(&options, std::future::pending::<()>).unwrap_err();
    assert_eq!(refused.kind(), ServeErrorKind::Store);
    assert_eq!(std::fs::read(&file).unwrap(), vec![7; 8192]);
    assert!(!options.socket.exists());
    let relative = ServiceOptions { data: "data".into(), ..options };
    assert_eq!(run_until(&relative, std::future::pending::<()>).unwrap_err().kind(), ServeErrorKind::Places);
}
