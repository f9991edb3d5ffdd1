//! A QMP client: JSON lines over a Unix socket.
//!
//! [`codec`] turns bytes into messages and is pure; [`client`] owns the socket, matches replies to requests by id and
//! hands events to whoever subscribed. Nothing here has a list of commands, events or enum values, so a newer QEMU
//! cannot surprise it: what a caller does not know it does not see. The guest agent speaks the same lines and uses
//! the same codec.

pub(crate) mod client;
pub(crate) mod codec;

pub(crate) use client::{Client, QmpError};
pub(crate) use codec::Event;
