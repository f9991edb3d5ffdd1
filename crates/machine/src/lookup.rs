//! Which machine a word means: a name, an id, or the unique beginning of either.
//!
//! Names and ids, and the switches that adapters are plugged into, are kept in memory and follow the store by its own log of
//! changes: every look first takes in what was written since the last one. So nobody who writes a record has to tell, what
//! was committed before a look is seen by it, and a look reads as many records as have changed, not as many as there are.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use store::{Store, Watch};
use uuid::Uuid;

use crate::error::{Error, Reason, Result};
use crate::record;

/// Most candidates that an ambiguous name lists.
const MAX_CANDIDATES: usize = 8;

/// Finds the records of one kind.
pub(crate) struct Lookup {
    /// Of their keys; an id follows.
    prefix: &'static str,
    /// What one of them is, for people.
    what: &'static str,
    /// The command that lists them.
    list: &'static str,
    /// `None` until the first look, and after one that failed.
    known: Mutex<Option<Known>>,
}

/// What was in the store at the last look.
struct Known {
    names: Names,
    /// What came after it.
    watch: Watch,
}

/// Names and ids, both in order, and what is plugged in where.
#[derive(Default)]
struct Names {
    /// By id.
    by_id: BTreeMap<String, Seen>,
    /// Name in lower case, and id.
    by_name: BTreeSet<(String, String)>,
    /// Name of a switch, and id of one that is plugged into it.
    by_switch: BTreeSet<(String, String)>,
}

/// What is known of one.
struct Seen {
    name: String,
    switches: BTreeSet<String>,
}

/// The part of a record that is looked at.
#[derive(Deserialize)]
struct Named {
    id: Uuid,
    settings: NamedSettings,
}

#[derive(Deserialize)]
struct NamedSettings {
    name: String,
    #[serde(default)]
    adapters: Vec<NamedAdapter>,
}

#[derive(Deserialize)]
struct NamedAdapter {
    #[serde(default)]
    switch: Option<String>,
}

impl Lookup {
    pub(crate) fn new(prefix: &'static str, what: &'static str, list: &'static str) -> Self {
        Self { prefix, what, list, known: Mutex::new(None) }
    }

    /// The id of what `word` means.
    ///
    /// # Errors
    /// Nothing fits, or several do: the message lists them. Or the store fails.
    pub(crate) fn find(&self, store: &dyn Store, word: &str) -> Result<Uuid> {
        self.look(store, |names| self.choose(word, &names.fitting(word)))
    }

    /// The first `most` ids that come after `after`, in order.
    ///
    /// # Errors
    /// The store fails.
    pub(crate) fn ids(&self, store: &dyn Store, after: Option<Uuid>, most: usize) -> Result<Vec<Uuid>> {
        let from = after.map_or(Bound::Unbounded, |id| Bound::Excluded(id.to_string()));
        self.look(store, |names| {
            let ids = names.by_id.range((from, Bound::Unbounded)).map(|(id, _)| Uuid::try_parse(id).ok());
            Ok(ids.flatten().take(most).collect())
        })
    }

    /// The id of each that is plugged into the switch called `switch`, in order.
    ///
    /// # Errors
    /// The store fails.
    pub(crate) fn plugged(&self, store: &dyn Store, switch: &str) -> Result<Vec<Uuid>> {
        self.look(store, |names| {
            let from = names.by_switch.range((switch.to_owned(), String::new())..);
            let of = from.take_while(|(name, _)| name == switch);
            Ok(of.filter_map(|(_, id)| Uuid::try_parse(id).ok()).collect())
        })
    }

    fn look<T>(&self, store: &dyn Store, at: impl FnOnce(&Names) -> Result<T>) -> Result<T> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        // Taken out: whatever fails below, the next look reads everything anew.
        let followed = match known.take() {
            Some(earlier) => earlier.follow(store, self.prefix)?,
            None => None,
        };
        let now = match followed {
            Some(now) => now,
            None => Known::read(store, self.prefix)?,
        };
        let found = at(&now.names);
        *known = Some(now);
        found
    }

    fn choose(&self, word: &str, fits: &[(&str, &str)]) -> Result<Uuid> {
        let Self { what, list, .. } = self;
        match fits {
            [(id, _)] => Uuid::try_parse(id).map_err(|e| {
                Error::new(Reason::Store, format!("record `{}{id}` has no id in its key", self.prefix))
                    .caused_by(e)
            }),
            [] => Err(Error::new(Reason::NotFound, format!("no {what} is called `{}`", word.trim()))
                .hint(format!("`{list}` shows what there is"))),
            [(_, first), ..] => {
                let shown = fits.iter().take(MAX_CANDIDATES);
                let mut names: Vec<_> = shown.map(|(id, name)| format!("`{name}` ({id})")).collect();
                if fits.len() > MAX_CANDIDATES {
                    names.push(format!("and {} more", fits.len() - MAX_CANDIDATES));
                }
                let (word, count) = (word.trim(), fits.len());
                let message = format!("`{word}` fits {count} {what}s: {}", names.join(", "));
                Err(Error::new(Reason::Ambiguous, message).hint(
                    if fits.iter().all(|(_, name)| name == first) {
                        "name it by its id, or by the beginning of it"
                    } else {
                        "name it by its id, or by more of its name"
                    },
                ))
            }
        }
    }
}

impl Known {
    /// Everything, as it is.
    fn read(store: &dyn Store, prefix: &str) -> Result<Self> {
        // In this order: what is written meanwhile is seen twice, not missed.
        let revision = store.revision().map_err(record::failed)?;
        let mut names = Names::default();
        for found in record::list::<Named>(store, prefix)? {
            names.insert(found.id.to_string(), found.settings);
        }
        let watch = store.watch(prefix, revision).map_err(record::failed)?;
        Ok(Self { names, watch })
    }

    /// This, with what was written since. `None` when the log of changes does not go back so far.
    fn follow(mut self, store: &dyn Store, prefix: &str) -> Result<Option<Self>> {
        let mut changed = BTreeSet::new();
        loop {
            match self.watch.next_timeout(Duration::ZERO) {
                Ok(Some(event)) => {
                    changed.insert(event.key);
                }
                Ok(None) => break,
                Err(e) if e.kind() == store::ErrorKind::Compacted => return Ok(None),
                Err(e) => return Err(record::failed(e)),
            }
        }
        for key in changed {
            let id = key.strip_prefix(prefix).unwrap_or(&key);
            self.names.remove(id);
            // As it is now; if it changes again, that is in the log again.
            if let Some((found, _)) = record::get::<Named>(store, &key)? {
                self.names.insert(id.to_owned(), found.settings);
            }
        }
        Ok(Some(self))
    }
}

impl Names {
    fn insert(&mut self, id: String, settings: NamedSettings) {
        let switches: BTreeSet<String> = settings.adapters.into_iter().filter_map(|a| a.switch).collect();
        self.by_name.insert((settings.name.to_lowercase(), id.clone()));
        self.by_switch.extend(switches.iter().map(|switch| (switch.clone(), id.clone())));
        self.by_id.insert(id, Seen { name: settings.name, switches });
    }

    fn remove(&mut self, id: &str) {
        if let Some(seen) = self.by_id.remove(id) {
            self.by_name.remove(&(seen.name.to_lowercase(), id.to_owned()));
            for switch in seen.switches {
                self.by_switch.remove(&(switch, id.to_owned()));
            }
        }
    }

    /// Id and name of what `word` fits best: an id, a name, a name in other letters, the beginning of either. Ordered by
    /// id.
    fn fitting(&self, word: &str) -> Vec<(&str, &str)> {
        let word = word.trim();
        let entry =
            |id: &str| self.by_id.get_key_value(id).map(|(id, seen)| (id.as_str(), seen.name.as_str()));
        if let Ok(id) = Uuid::try_parse(word.trim_start_matches('{').trim_end_matches('}'))
            && let Some(found) = entry(&id.to_string())
        {
            return vec![found];
        }
        let lower = word.to_lowercase();
        let from = || self.by_name.range((lower.clone(), String::new())..);
        let folded: Vec<_> =
            from().take_while(|(name, _)| *name == lower).filter_map(|(_, id)| entry(id)).collect();
        let exact: Vec<_> = folded.iter().filter(|(_, name)| *name == word).copied().collect();
        if let Some(found) = [exact, folded].into_iter().find(|found| !found.is_empty()) {
            return found;
        }
        if word.is_empty() {
            return Vec::new();
        }
        let names = from().take_while(|(name, _)| name.starts_with(&lower)).map(|(_, id)| id.as_str());
        let ids = self.by_id.range(lower.clone()..).map(|(id, _)| id.as_str());
        let ids = ids.take_while(|id| id.starts_with(&lower));
        let both: BTreeSet<&str> = names.chain(ids).collect();
        both.into_iter().filter_map(entry).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use store::{MemoryStore, Txn};

    use super::*;

    fn id(n: u128) -> Uuid {
        Uuid::from_u128(n << 96 | 7)
    }

    fn put(store: &MemoryStore, id: Uuid, name: &str) {
        let record = serde_json::json!({"id": id, "settings": {"name": name}, "more": 1});
        let _ = store.txn(&Txn::new().put(format!("machine/{id}"), record.to_string())).unwrap();
    }

    fn lookup() -> Lookup {
        Lookup::new("machine/", "machine", "slipway machine list")
    }

    #[test]
    fn a_word_finds_its_machine_or_says_why_not() {
        let store = MemoryStore::new();
        for (n, name) in [(0xaaaa_0001, "web"), (0xaaaa_0002, "Web-2"), (0xbbbb_0003, "db")] {
            put(&store, id(n), name);
        }
        let lookup = lookup();
        let find = |w: &str| lookup.find(&store, w);
        assert_eq!(find("web").unwrap(), id(0xaaaa_0001), "an exact name wins over a longer one");
        assert_eq!(find(" WEB ").unwrap(), id(0xaaaa_0001));
        assert_eq!(find("bbbb").unwrap(), id(0xbbbb_0003));
        assert_eq!(find("web-").unwrap(), id(0xaaaa_0002));
        assert_eq!(find(&id(0xaaaa_0002).to_string()).unwrap(), id(0xaaaa_0002));
        assert_eq!(find(&format!("{{{:X}}}", id(0xaaaa_0002).hyphenated())).unwrap(), id(0xaaaa_0002));
        let ambiguous = find("aaaa").unwrap_err();
        assert_eq!(ambiguous.reason(), Reason::Ambiguous);
        assert!(ambiguous.to_string().contains("Web-2"));
        assert_eq!(find("nope").unwrap_err().reason(), Reason::NotFound);
        assert_eq!(find("").unwrap_err().reason(), Reason::NotFound);
        // Two of one name, and one that differs in its letters only.
        put(&store, id(4), "DB");
        assert_eq!(find("DB").unwrap(), id(4));
        put(&store, id(5), "db");
        assert_eq!(find("db").unwrap_err().reason(), Reason::Ambiguous);
    }

    #[test]
    fn what_was_written_before_a_look_is_seen_by_it() {
        // A log so short that a look may find it cut.
        let store = MemoryStore::with_change_log(3);
        let lookup = lookup();
        let find = |w: &str| lookup.find(&store, w).map_err(|e| e.reason());
        assert_eq!(find("a"), Err(Reason::NotFound));
        put(&store, id(1), "a");
        assert_eq!(find("a"), Ok(id(1)));
        put(&store, id(1), "b");
        assert_eq!((find("a"), find("b")), (Err(Reason::NotFound), Ok(id(1))));
        (0..9).for_each(|n| put(&store, id(1), &format!("c{n}")));
        assert_eq!((find("b"), find("c8"), find("c")), (Err(Reason::NotFound), Ok(id(1)), Ok(id(1))));
        let _ = store.txn(&Txn::new().delete(format!("machine/{}", id(1)))).unwrap();
        assert_eq!(find("c8"), Err(Reason::NotFound));
        // One that cannot be read is told, and is no reason to forget the others when it can.
        let broken = format!("machine/{}", id(2));
        put(&store, id(3), "z");
        let _ = store.txn(&Txn::new().put(broken.clone(), "{")).unwrap();
        assert_eq!(find("z"), Err(Reason::Store));
        let _ = store.txn(&Txn::new().delete(broken)).unwrap();
        assert_eq!(find("z"), Ok(id(3)));
    }

    #[test]
    fn who_is_plugged_into_a_switch_is_known() {
        let store = MemoryStore::new();
        let lookup = lookup();
        let plug = |id: Uuid, switches: &[Option<&str>]| {
            let adapters: Vec<_> = switches.iter().map(|s| serde_json::json!({"switch": s})).collect();
            let record =
                serde_json::json!({"id": id, "settings": {"name": "a", "adapters": adapters}}).to_string();
            let _ = store.txn(&Txn::new().put(format!("machine/{id}"), record)).unwrap();
        };
        let on = |switch: &str| lookup.plugged(&store, switch).unwrap();
        plug(id(2), &[Some("LAN"), Some("LAN"), None]);
        plug(id(1), &[Some("LAN"), Some("LAN 2")]);
        assert_eq!((on("LAN"), on("LAN 2"), on("lan")), (vec![id(1), id(2)], vec![id(1)], vec![]));
        plug(id(1), &[None]);
        assert_eq!((on("LAN"), on("LAN 2")), (vec![id(2)], vec![]));
        let _ = store.txn(&Txn::new().delete(format!("machine/{}", id(2)))).unwrap();
        assert!(on("LAN").is_empty());
    }

    #[test]
    fn names_are_found_while_others_write() {
        let store = Arc::new(MemoryStore::new());
        let lookup = lookup();
        std::thread::scope(|scope| {
            for thread in 0..4_u128 {
                let (store, lookup) = (&store, &lookup);
                scope.spawn(move || {
                    for n in 0..50 {
                        let (id, name) = (id(thread << 8 | n), format!("{thread}-{n}"));
                        put(store, id, &name);
                        assert_eq!(lookup.find(&**store, &name).unwrap(), id);
                        put(store, id, &format!("was-{name}"));
                        assert_eq!(lookup.find(&**store, &name).unwrap_err().reason(), Reason::NotFound);
                    }
                });
            }
        });
        assert_eq!(lookup.known.lock().unwrap().as_ref().unwrap().names.by_name.len(), 200);
    }
}
