//! Pools, and the settings that clients copy to make a resource: v2's, in v1's words.

use cim::Instance;

use super::resource::told;
use crate::world::World;
use crate::{capabilities, pool};

/// The connection of an adapter is no resource of its own here.
fn without_connections(made: Vec<Instance>) -> Vec<Instance> {
    let mut made = told(made);
    made.retain(|one| one.text("ResourceSubType") != Some("Microsoft Ethernet Connection"));
    made
}

pub(super) fn pools(world: &World) -> Vec<Instance> {
    without_connections(pool::pools(world))
}

pub(super) fn processor_pool(world: &World) -> Vec<Instance> {
    told(pool::processors(world))
}

pub(super) fn capabilities(world: &World) -> Vec<Instance> {
    without_connections(capabilities::allocation(world))
}

pub(super) fn allocations(world: &World) -> Vec<Instance> {
    let mut all = told(capabilities::resources(world));
    all.extend(told(capabilities::storage(world)));
    all
}

pub(super) fn processor(world: &World) -> Vec<Instance> {
    told(capabilities::processor(world))
}

pub(super) fn memory(world: &World) -> Vec<Instance> {
    told(capabilities::memory(world))
}

pub(super) fn synthetic(world: &World) -> Vec<Instance> {
    told(capabilities::synthetic(world))
}
