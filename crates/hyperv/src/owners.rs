//! Going through owners without having them all.
//!
//! A client may leave a thousand enumerations open over ten thousand machines. So what is kept between two instances is
//! where a listing stands, and a page of ids. Machines are gone through in the order of their ids: one that is made or
//! deleted meanwhile is there or not, and none is there twice.

use std::collections::VecDeque;
use std::sync::Arc;

use uuid::Uuid;

use crate::owner::{OwnerId, Scope};
use crate::world::World;

/// Most ids that are taken at a time.
const PAGE: usize = 64;

/// Owners, as they are taken.
pub(crate) struct Owners {
    world: Arc<World>,
    page: VecDeque<OwnerId>,
    rest: VecDeque<Rest>,
}

/// What is not taken yet.
enum Rest {
    Scope(Scope),
    /// Machines, or planned ones, whose ids come after this.
    Machines {
        planned: bool,
        after: Option<Uuid>,
    },
}

impl Owners {
    /// All of these kinds, one kind after the other.
    pub(crate) fn all(world: &Arc<World>, scopes: impl IntoIterator<Item = Scope>) -> Self {
        let rest = scopes.into_iter().map(Rest::Scope).collect();
        Self { world: Arc::clone(world), page: VecDeque::new(), rest }
    }

    /// These.
    pub(crate) fn these(world: &Arc<World>, ids: Vec<OwnerId>) -> Self {
        Self { world: Arc::clone(world), page: ids.into(), rest: VecDeque::new() }
    }

    fn turn(&mut self, rest: Rest) -> machine::Result<()> {
        let host = &self.world.host;
        match rest {
            Rest::Scope(Scope::Machine) => {
                self.rest.push_front(Rest::Machines { planned: true, after: None });
                self.rest.push_front(Rest::Machines { planned: false, after: None });
            }
            Rest::Scope(Scope::Host) => self.page.push_back(OwnerId::Host),
            Rest::Scope(Scope::Switch) => {
                self.page.extend(host.switches()?.into_iter().map(|s| OwnerId::Switch(s.id)));
            }
            Rest::Scope(Scope::Job) => self.page.extend(self.world.job_ids().into_iter().map(OwnerId::Job)),
            Rest::Machines { planned, after } => {
                let ids =
                    if planned { host.planned_ids(after, PAGE)? } else { host.machine_ids(after, PAGE)? };
                if ids.len() == PAGE {
                    self.rest.push_front(Rest::Machines { planned, after: ids.last().copied() });
                }
                let kind = if planned { OwnerId::Planned } else { OwnerId::Machine };
                self.page.extend(ids.into_iter().map(kind));
            }
        }
        Ok(())
    }
}

impl Iterator for Owners {
    type Item = machine::Result<OwnerId>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(id) = self.page.pop_front() {
                return Some(Ok(id));
            }
            let rest = self.rest.pop_front()?;
            if let Err(e) = self.turn(rest) {
                // Whatever is missing from here on, the listing must not look whole.
                self.rest.clear();
                return Some(Err(e));
            }
        }
    }
}
