//! From blocking boards to async watchers: two threads that wait so that no request has to hold one.
//!
//! The domain publishes changes with numbers and blocks whoever waits for the next. A thread per board does that once
//! for everybody and passes the number on; a handler that sees it move reads the board without waiting.

use std::sync::Weak;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use machine::Host;
use tokio::sync::watch;

/// How long a thread waits before it looks whether it should end.
const TICK: Duration = Duration::from_millis(200);

/// The numbers of the latest changes.
pub(crate) struct Pulse {
    pub(crate) jobs: watch::Receiver<u64>,
    pub(crate) machines: watch::Receiver<u64>,
    /// Distinguishes this process's numbers from another's.
    pub(crate) epoch: String,
    stop: Arc<AtomicBool>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Pulse {
    pub(crate) fn start(host: &Arc<Host>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (job_sender, jobs) = watch::channel(0);
        let (machine_sender, machines) = watch::channel(0);
        let next_job = |host: &Host, since| host.jobs().changes(since, TICK).generation;
        let next_machine = |host: &Host, since| host.machine_changes(since, TICK).generation;
        let threads = [
            pump("events-jobs", Arc::downgrade(host), Arc::clone(&stop), job_sender, next_job),
            pump("events-machines", Arc::downgrade(host), Arc::clone(&stop), machine_sender, next_machine),
        ];
        let threads = Mutex::new(threads.into_iter().flatten().collect());
        let epoch = uuid::Uuid::new_v4().simple().to_string()[..8].to_owned();
        Self { jobs, machines, epoch, stop, threads }
    }
}

fn pump(
    name: &str,
    host: Weak<Host>,
    stop: Arc<AtomicBool>,
    sender: watch::Sender<u64>,
    next: impl Fn(&Host, u64) -> u64 + Send + 'static,
) -> Option<JoinHandle<()>> {
    let run = move || {
        let mut seen = 0;
        while !stop.load(Ordering::Acquire) {
            let Some(host) = host.upgrade() else { return };
            let generation = next(&host, seen);
            if generation != seen {
                seen = generation;
                sender.send_replace(generation);
            }
        }
    };
    let spawned = std::thread::Builder::new().name(name.to_owned()).spawn(run);
    spawned.inspect_err(|e| tracing::error!("no thread for {name}: {e}")).ok()
}

impl Drop for Pulse {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            // A panic in there was printed by the thread itself.
            let _ = thread.join();
        }
    }
}
