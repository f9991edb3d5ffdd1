//! What guests' agents say, asked in the background: who looks at a machine waits for a moment at most, and not at all
//! while others are silent.
//!
//! An answer is good for [`FRESH`] and shown until there is a newer one; it is forgotten with the guest that gave it.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use machine::Host;
use machine::inside::AgentReport;
use machine::power::PowerState;
use uuid::Uuid;

use crate::owner::Machine;
use crate::world::World;

/// How long one question to an agent may take.
const QUESTION: Duration = Duration::from_secs(1);
/// How long whoever looks waits for an agent that was never heard.
const PATIENCE: Duration = Duration::from_millis(300);
/// How long an answer is taken for what is so.
const FRESH: Duration = Duration::from_secs(5);
/// Most agents that are asked at once.
const MAX_ASKED: usize = 16;
/// Most answers that are kept.
const MAX_KEPT: usize = 4096;

/// A guest: its machine, and which of its starts.
type Key = (Uuid, u64);

/// What is known of an agent.
#[derive(Clone, Debug)]
pub(crate) enum Heard {
    /// Nobody asked yet, or the answer is on its way.
    Unknown,
    /// It did not answer.
    Silent,
    /// What it said last.
    Said(Arc<AgentReport>),
}

#[derive(Debug)]
struct Seen {
    heard: Heard,
    /// When it was heard.
    at: Instant,
    /// Since when it is asked anew.
    asked: Option<Instant>,
}

#[derive(Debug, Default)]
pub(crate) struct Agents {
    seen: Mutex<HashMap<Key, Seen>>,
    told: Condvar,
}

impl Agents {
    fn hear(self: &Arc<Self>, host: &Arc<Host>, key: Key) -> Heard {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let asked = seen.values().filter(|one| one.asked.is_some()).count();
        let overdue = seen.values().any(|one| one.asked.is_some_and(|since| now - since > PATIENCE));
        let stale = seen.get(&key).is_none_or(|one| {
            one.asked.is_none() && (matches!(one.heard, Heard::Unknown) || now - one.at > FRESH)
        });
        if stale && asked < MAX_ASKED {
            if seen.len() >= MAX_KEPT {
                seen.retain(|_, one| one.asked.is_some() || now - one.at <= FRESH);
            }
            let one = seen.entry(key).or_insert(Seen { heard: Heard::Unknown, at: now, asked: None });
            one.asked = Some(now);
            let (agents, host) = (Arc::clone(self), Arc::clone(host));
            let begun = thread::Builder::new().name("agent".to_owned()).spawn(move || {
                let heard = match host.agent_report(key.0, QUESTION) {
                    Ok(report) => Heard::Said(Arc::new(report)),
                    Err(_) => Heard::Silent,
                };
                let mut seen = agents.seen.lock().unwrap_or_else(PoisonError::into_inner);
                seen.insert(key, Seen { heard, at: Instant::now(), asked: None });
                drop(seen);
                agents.told.notify_all();
            });
            if let Err(e) = begun {
                tracing::warn!("no thread to ask an agent: {e}");
                one.asked = None;
            }
        }
        // One silent guest is waited for, not each of a thousand.
        while !overdue
            && seen.get(&key).is_some_and(|one| one.asked.is_some() && matches!(one.heard, Heard::Unknown))
        {
            let left = PATIENCE.saturating_sub(now.elapsed());
            if left.is_zero() {
                break;
            }
            let waited = self.told.wait_timeout(seen, left);
            seen = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        seen.get(&key).map_or(Heard::Unknown, |one| one.heard.clone())
    }
}

impl World {
    /// What the agent of the machine's guest said last; asks it when that is long ago.
    pub(crate) fn hear(&self, machine: &Machine) -> Heard {
        match machine.real() {
            Some(view) if view.power == PowerState::Running => {
                self.agents.hear(&self.host, (view.record.id, view.record.run_generation))
            }
            _ => Heard::Unknown,
        }
    }
}
