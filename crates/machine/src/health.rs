//! Whether a host can do its work: records can be written, guests can be started.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Reason, Result};
use crate::host::Host;
use crate::record;

/// How long a look stays valid: however many watchers there are, the disk is written to once in this time.
const FRESH: Duration = Duration::from_secs(5);
/// Written to find out whether it can be.
const KEY: &str = "health/looked";

#[derive(Serialize, Deserialize)]
struct Looked {
    at: Timestamp,
}

/// The last look.
pub(crate) struct Look {
    at: Instant,
    /// What is wrong, as the parts of an error, which cannot be cloned.
    wrong: Option<(Reason, String, Option<String>)>,
}

impl Host {
    /// Writes a small record and looks for what runs guests, at most every few seconds; the answer of the last look in
    /// between.
    ///
    /// # Errors
    /// The store cannot be written, or guests cannot be started here; the hint says what to do.
    pub fn health(&self) -> Result<()> {
        // Held while looking: everybody who asks meanwhile gets this look's answer.
        let mut last = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = last.as_ref().filter(|look| look.at.elapsed() < FRESH);
        let wrong = match fresh {
            Some(look) => look.wrong.clone(),
            None => {
                let found = self.can_write().and_then(|()| self.can_run());
                let wrong = found.err().map(|e| (e.reason(), e.chain(), e.hint_text().map(str::to_owned)));
                if let Some((_, why, _)) = &wrong {
                    tracing::warn!("not healthy: {why}");
                }
                *last = Some(Look { at: Instant::now(), wrong: wrong.clone() });
                wrong
            }
        };
        match wrong {
            None => Ok(()),
            Some((reason, message, hint)) => {
                let error = Error::new(reason, message);
                Err(hint.into_iter().fold(error, Error::hint))
            }
        }
    }

    fn can_write(&self) -> Result<()> {
        let put = record::put(KEY.to_owned(), &Looked { at: self.now() })?;
        record::commit(&*self.store, vec![], vec![put]).map(drop)
    }

    fn can_run(&self) -> Result<()> {
        let report = self.report();
        let Some(failed) = report.checks.into_iter().find(|c| c.verdict == engine::Verdict::Fail) else {
            return Ok(());
        };
        let error = Error::new(Reason::HostLacks, format!("guests cannot be started: {}", failed.found));
        Err(failed.fix.into_iter().fold(error, Error::hint))
    }
}
