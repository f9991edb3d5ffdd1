//! The threads that run a guest's virtual processors, and how long they ran: QEMU says which they are, Linux how long.

use std::fs;
use std::time::Duration;

use serde_json::Value;

use crate::error::{GuestError, GuestErrorKind};

/// Most virtual processors that are looked at.
const MAX_PROCESSORS: usize = 4096;
/// Ticks of the clock that `/proc` counts in. `sysconf(_SC_CLK_TCK)` is 100 on every architecture that Linux runs KVM on
/// (`USER_HZ`, part of its ABI).
const TICKS_PER_SECOND: u64 = 100;

/// The time that each processor of `query-cpus-fast`'s answer has used, by its number.
pub(super) fn times(pid: u32, answer: &Value) -> Result<Vec<Duration>, GuestError> {
    let mut threads: Vec<(u64, u64)> = answer
        .as_array()
        .into_iter()
        .flatten()
        .take(MAX_PROCESSORS)
        .filter_map(|one| Some((one.get("cpu-index")?.as_u64()?, one.get("thread-id")?.as_u64()?)))
        .collect();
    threads.sort_unstable();
    threads
        .into_iter()
        .map(|(_, thread)| {
            let path = format!("/proc/{pid}/task/{thread}/stat");
            let text = fs::read_to_string(&path).map_err(|e| {
                GuestError::new(GuestErrorKind::Gone, format!("cannot read {path}")).with_source(e)
            })?;
            used(&text)
                .ok_or_else(|| GuestError::new(GuestErrorKind::Io, format!("{path} is not as proc(5) says")))
        })
        .collect()
}

/// User and system time (fields 14 and 15 of proc(5)'s `stat`). The name before them may hold anything.
fn used(stat: &str) -> Option<Duration> {
    let after = &stat[stat.rfind(')')? + 1..];
    // The first field after the name is the third.
    let mut fields = after.split_ascii_whitespace().skip(11);
    let (user, system) = (fields.next()?.parse::<u64>().ok()?, fields.next()?.parse::<u64>().ok()?);
    let ticks = user.checked_add(system)?;
    Some(Duration::from_millis(ticks.checked_mul(1000 / TICKS_PER_SECOND)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_thread_is_read_whatever_it_is_called() {
        let stat = "7 (CPU 0) (x) R 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0 1 0 99 0 0";
        assert_eq!(used(stat), Some(Duration::from_secs(2)));
        for wrong in ["", "7 (a", "7 (a) R 1", "7 (a) R 1 2 3 4 5 6 7 8 9 10 x 50"] {
            assert_eq!(used(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn this_thread_has_a_time() {
        let pid = std::process::id();
        let answer = serde_json::json!([{"cpu-index": 0, "thread-id": pid}, {"thread-id": 1}]);
        assert_eq!(times(pid, &answer).unwrap().len(), 1);
        let gone = serde_json::json!([{"cpu-index": 0, "thread-id": 1}]);
        assert!(times(pid, &gone).is_err());
    }
}
