//! Export speed against `qemu-img` and the disk's own copy limit. (Comes with the export command.)

use crate::outside::Outcome;

pub(crate) fn run(_arguments: &[String]) -> Outcome {
    Err("bench is not there yet".to_owned())
}
