//! All keys of a prefix, page by page.

use std::collections::VecDeque;

use crate::{Error, MAX_PAGE, Store, Versioned};

/// Walks every key that starts with `prefix`, in byte order, reading one page at a time.
///
/// Keys written or removed during the walk may or may not be seen; those left alone are seen exactly once.
pub fn scan<'a>(store: &'a dyn Store, prefix: &str) -> Scan<'a> {
    Scan { store, prefix: prefix.to_owned(), after: None, page: VecDeque::new(), ended: false }
}

/// Iterator of [`scan`]; ends after the first error.
pub struct Scan<'a> {
    store: &'a dyn Store,
    prefix: String,
    after: Option<String>,
    page: VecDeque<Versioned>,
    ended: bool,
}

impl Iterator for Scan<'_> {
    type Item = Result<Versioned, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.page.is_empty() && !self.ended {
            match self.store.range(&self.prefix, self.after.as_deref(), MAX_PAGE) {
                Ok(page) => {
                    self.ended = page.is_empty();
                    self.after = page.last().map(|entry| entry.key.clone()).or(self.after.take());
                    self.page = page.into();
                }
                Err(error) => {
                    self.ended = true;
                    return Some(Err(error));
                }
            }
        }
        self.page.pop_front().map(Ok)
    }
}
