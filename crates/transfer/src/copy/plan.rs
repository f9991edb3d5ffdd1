//! From extents to work: which chunks must be read, in ascending order, in pieces of bounded size.

use std::collections::VecDeque;

use crate::copy::CopyError;
use crate::digest::CHUNK_SIZE;
use crate::source::{Extent, ExtentKind, Source, SourceError};

/// Longest run of zeros handed to a sink in one call.
const MAX_ZERO_RUN: u64 = 1 << 30;

/// How much data a source holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Measure {
    /// Bytes of data in the range asked for.
    pub data: u64,
    /// Bytes of data below the range.
    pub before: u64,
    /// Extents of data, all in all.
    pub extents: u64,
}

/// Counts data below `end` from metadata, split at `start`.
///
/// # Errors
/// From the source, or `Cancelled`.
pub fn measure(
    source: &dyn Source,
    start: u64,
    end: u64,
    cancelled: &dyn Fn() -> bool,
) -> Result<Measure, CopyError> {
    let end = end.min(source.size());
    let mut measure = Measure::default();
    let mut at = 0;
    while at < end {
        if cancelled() {
            return Err(CopyError::cancelled());
        }
        for extent in extents_from(source, at, end)? {
            at = extent.end();
            if extent.kind == ExtentKind::Data {
                let before = extent.end().min(start).saturating_sub(extent.offset);
                measure.before += before;
                measure.data += extent.length - before;
                measure.extents += 1;
            }
        }
    }
    Ok(measure)
}

/// Extents from `at`, trusted only as far as they make sense: consecutive, inside the range, at least one.
fn extents_from(source: &dyn Source, at: u64, end: u64) -> Result<Vec<Extent>, SourceError> {
    let mut extents = source.extents(at, end - at)?;
    let mut expected = at;
    let mut good = 0;
    for extent in &mut extents {
        if extent.offset != expected || extent.length == 0 || expected >= end {
            break;
        }
        extent.length = extent.length.min(end - expected);
        expected = extent.end();
        good += 1;
    }
    extents.truncate(good);
    if extents.is_empty() {
        // A source that cannot say: everything is data.
        extents.push(Extent { offset: at, length: end - at, kind: ExtentKind::Data, layer: 0 });
    }
    Ok(extents)
}

/// One transfer: whole chunks that hold data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Item {
    /// Counts from 0, in ascending order of `start`.
    pub(super) sequence: u64,
    /// First byte, a multiple of the chunk size.
    pub(super) start: u64,
    /// End, a multiple of the chunk size or the end of the copy.
    pub(super) end: u64,
    /// The data inside, ascending, as (start, end); empty for zeros that the sink must be told.
    pub(super) pieces: Vec<(u64, u64)>,
}

/// Yields items; holds one batch of extents and nothing that grows with the disk.
pub(super) struct Plan<'a> {
    source: &'a dyn Source,
    /// Extents are known below this.
    mapped: u64,
    end: u64,
    io_size: u64,
    /// The sink wants to hear about zeros.
    zeros: bool,
    /// Known and not yet planned.
    extents: VecDeque<Extent>,
    /// Items below this were yielded, or needed none.
    planned: u64,
    sequence: u64,
}

impl<'a> Plan<'a> {
    pub(super) fn new(source: &'a dyn Source, start: u64, end: u64, io_size: u64, zeros: bool) -> Self {
        Self {
            source,
            mapped: start,
            end,
            io_size,
            zeros,
            extents: VecDeque::new(),
            planned: start,
            sequence: 0,
        }
    }

    /// The next piece of work, `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Item>, SourceError> {
        let mut item: Option<Item> = None;
        while let Some(extent) = self.next_data()? {
            let from = extent.offset.max(self.planned);
            let chunk = from - from % CHUNK_SIZE;
            match &mut item {
                None => {
                    if self.zeros && chunk > self.planned {
                        let end = chunk.min(self.planned + MAX_ZERO_RUN);
                        self.extents.push_front(extent);
                        return Ok(Some(self.zero_item(end)));
                    }
                    let start = chunk.max(self.planned);
                    item = Some(Item { sequence: self.sequence, start, end: start, pieces: Vec::new() });
                }
                // Not adjacent, or full: it belongs to a later item.
                Some(open) if chunk > open.end || from >= open.start + self.io_size => {
                    self.extents.push_front(extent);
                    break;
                }
                Some(_) => {}
            }
            let Some(open) = &mut item else { continue };
            let limit = (open.start + self.io_size).min(self.end);
            let to = extent.end().min(limit);
            open.pieces.push((from, to));
            open.end = to.next_multiple_of(CHUNK_SIZE).min(limit);
            if to < extent.end() {
                self.extents.push_front(Extent { offset: to, length: extent.end() - to, ..extent });
                break;
            }
        }
        if let Some(item) = item {
            self.sequence += 1;
            self.planned = item.end;
            return Ok(Some(item));
        }
        if self.zeros && self.planned < self.end {
            let end = self.end.min(self.planned + MAX_ZERO_RUN);
            return Ok(Some(self.zero_item(end)));
        }
        Ok(None)
    }

    fn zero_item(&mut self, end: u64) -> Item {
        let item = Item { sequence: self.sequence, start: self.planned, end, pieces: Vec::new() };
        self.sequence += 1;
        self.planned = end;
        item
    }

    fn next_data(&mut self) -> Result<Option<Extent>, SourceError> {
        let end = self.end.min(self.source.size());
        loop {
            match self.extents.pop_front() {
                Some(extent) if extent.kind == ExtentKind::Data => return Ok(Some(extent)),
                Some(_) => {}
                None if self.mapped >= end => return Ok(None),
                None => {
                    self.extents = extents_from(self.source, self.mapped, end)?.into();
                    self.mapped = self.extents.back().map_or(end, Extent::end);
                }
            }
        }
    }
}
