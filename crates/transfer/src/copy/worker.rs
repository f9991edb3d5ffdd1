//! What one worker thread does with one item, and how items are handed out.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::limiter::Limiter;
use super::plan::{Item, Plan};
use super::{CopyError, ZERO_GRANULE};
use crate::buffer::{AlignedBuf, is_zero};
use crate::digest::{CHUNK_SIZE, Digest};
use crate::sink::Sink;
use crate::source::Source;

/// Items handed out beyond the lowest unfinished one at most: it bounds what waits to be put back in order.
const WINDOW: u64 = 1024;

/// What an item's work came to.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) sequence: u64,
    pub(super) end: u64,
    /// Chunks that are not all zero.
    pub(super) digests: Vec<(u64, Digest)>,
    pub(super) data: u64,
    pub(super) written: u64,
    pub(super) cloned: u64,
}

/// What all workers share.
pub(super) struct Shared<'a> {
    source: &'a dyn Source,
    sink: &'a dyn Sink,
    limiter: Option<&'a Limiter>,
    queue: Mutex<Queue<'a>>,
    moved: Condvar,
    stopped: AtomicBool,
}

struct Queue<'a> {
    plan: Plan<'a>,
    handed_out: u64,
    completed: u64,
}

impl<'a> Shared<'a> {
    pub(super) fn new(
        source: &'a dyn Source,
        sink: &'a dyn Sink,
        plan: Plan<'a>,
        limiter: Option<&'a Limiter>,
    ) -> Self {
        let queue = Mutex::new(Queue { plan, handed_out: 0, completed: 0 });
        Self { source, sink, limiter, queue, moved: Condvar::new(), stopped: AtomicBool::new(false) }
    }

    /// No further item is handed out; workers leave after at most one transfer.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        drop(self.lock());
        self.moved.notify_all();
    }

    /// All items below `sequence` are done.
    pub(super) fn completed_below(&self, sequence: u64) {
        let mut queue = self.lock();
        if queue.completed != sequence {
            queue.completed = sequence;
            self.moved.notify_all();
        }
    }

    fn stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Queue<'a>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self) -> Result<Option<Item>, CopyError> {
        let mut queue = self.lock();
        while queue.handed_out >= queue.completed + WINDOW && !self.stopped() {
            queue = self.moved.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        if self.stopped() {
            return Ok(None);
        }
        let item = queue.plan.next()?;
        queue.handed_out += u64::from(item.is_some());
        Ok(item)
    }
}

/// Works until nothing is left, something failed, or somebody said stop.
pub(super) fn run(shared: &Shared<'_>, io_size: usize, results: &Sender<Result<Done, CopyError>>) {
    let mut buf = match AlignedBuf::new(io_size) {
        Ok(buf) => buf,
        Err(source) => {
            let _gone = results.send(Err(super::CopyFailure::Memory { bytes: io_size, source }.into()));
            return shared.stop();
        }
    };
    loop {
        let result = match shared.next() {
            Ok(Some(item)) => transfer(shared, &item, &mut buf).transpose(),
            Ok(None) => None,
            Err(error) => Some(Err(error)),
        };
        // Told to stop: somebody else has said why.
        let Some(result) = result else { return };
        let failed = result.is_err();
        let heard = results.send(result).is_ok();
        if failed {
            shared.stop();
        }
        if failed || !heard {
            return;
        }
    }
}

/// `None` when stopped half-way.
fn transfer(shared: &Shared<'_>, item: &Item, buf: &mut AlignedBuf) -> Result<Option<Done>, CopyError> {
    let mut done =
        Done { sequence: item.sequence, end: item.end, digests: Vec::new(), data: 0, written: 0, cloned: 0 };
    if item.pieces.is_empty() {
        shared.sink.write_zeroes(item.start, item.end - item.start)?;
        return Ok(Some(done));
    }
    let window = &mut buf[..(item.end - item.start) as usize];
    let mut at = 0;
    for (from, to) in &item.pieces {
        if let Some(limiter) = shared.limiter {
            limiter.take(to - from, &|| shared.stopped());
        }
        if shared.stopped() {
            return Ok(None);
        }
        let (from_at, to_at) = ((from - item.start) as usize, (to - item.start) as usize);
        window[at..from_at].fill(0);
        shared.source.read_at(&mut window[from_at..to_at], *from)?;
        done.data += to - from;
        at = to_at;
    }
    window[at..].fill(0);

    // Runs of granules that are not zero, joined across chunks: few large writes.
    let mut run: Option<(usize, usize)> = None;
    for (chunk_number, chunk) in window.chunks(CHUNK_SIZE as usize).enumerate() {
        let chunk_at = chunk_number * CHUNK_SIZE as usize;
        let mut empty = true;
        for (number, granule) in chunk.chunks(ZERO_GRANULE).enumerate() {
            let from = chunk_at + number * ZERO_GRANULE;
            if is_zero(granule) {
                if !flush(shared, item, window, &mut run, &mut done)? {
                    return Ok(None);
                }
                if !shared.sink.is_fresh() {
                    shared.sink.write_zeroes(item.start + from as u64, granule.len() as u64)?;
                }
                continue;
            }
            empty = false;
            let to = from + granule.len();
            run = Some(run.map_or((from, to), |(start, _)| (start, to)));
        }
        if !empty {
            done.digests.push((item.start / CHUNK_SIZE + chunk_number as u64, Digest::of(chunk)));
        }
    }
    Ok(flush(shared, item, window, &mut run, &mut done)?.then_some(done))
}

/// Writes the open run; false when told to stop.
fn flush(
    shared: &Shared<'_>,
    item: &Item,
    window: &[u8],
    run: &mut Option<(usize, usize)>,
    done: &mut Done,
) -> Result<bool, CopyError> {
    let Some((from, to)) = run.take() else { return Ok(true) };
    if shared.stopped() {
        return Ok(false);
    }
    let cloned = clone(shared, item.start + from as u64, (to - from) as u64)?;
    done.cloned += cloned;
    let from = from + cloned as usize;
    if from < to {
        shared.sink.write_at(&window[from..to], item.start + from as u64)?;
        done.written += (to - from) as u64;
    }
    Ok(true)
}

/// Shares the blocks of the source; how many bytes from `offset` need no writing. What was hashed is what is shared: had
/// somebody written to the source in between, the copy would end with `Changed`.
fn clone(shared: &Shared<'_>, offset: u64, length: u64) -> Result<u64, CopyError> {
    let mut done = 0;
    while done < length {
        let Some(range) = shared.source.file_range(offset + done, length - done) else { break };
        if !shared.sink.clone_range(range, offset + done)? {
            break;
        }
        done += range.length;
    }
    Ok(done)
}
