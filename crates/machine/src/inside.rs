//! What is known of the inside of a running guest: what its agent says of it, and how busy its processors were.
//!
//! An agent may be absent, slow or lying: nothing it says is acted upon, and every question has a limit.

use std::net::IpAddr;
use std::time::Duration;

use engine::AgentOs;
use uuid::Uuid;

use crate::error::{Error, Reason, Result};
use crate::host::Host;

/// What a guest's agent says of its guest. Hostile input: show it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentReport {
    /// The guest's name for itself.
    pub host_name: Option<String>,
    /// For people: `Debian GNU/Linux 13 (trixie)`.
    pub os_name: Option<String>,
    /// The operating system's version.
    pub os_version: Option<String>,
    /// Its kernel's release.
    pub kernel: Option<String>,
    /// The addresses of its interfaces, those of the loopback left out.
    pub addresses: Vec<IpAddr>,
}

impl Host {
    /// Asks the agent of machine `id` who it is; each question takes `limit` at most, and there are four.
    ///
    /// # Errors
    /// No guest runs, or its agent does not answer. One that answers but does not know something leaves it out.
    pub fn agent_report(&self, id: Uuid, limit: Duration) -> Result<AgentReport> {
        let guest = self.guest(id)?;
        guest
            .agent_ping(limit)
            .map_err(|e| Error::new(Reason::Timeout, "the guest's agent does not answer").caused_by(e))?;
        let AgentOs { pretty_name, version, kernel, .. } = guest.agent_os(limit).unwrap_or_default();
        let interfaces = guest.agent_interfaces(limit).unwrap_or_default();
        let addresses = interfaces.into_iter().flat_map(|one| one.addresses).map(|(address, _)| address);
        Ok(AgentReport {
            host_name: guest.agent_host_name(limit).ok(),
            os_name: pretty_name,
            os_version: version,
            kernel,
            addresses: addresses.filter(|a| !a.is_loopback() && !a.is_unspecified()).collect(),
        })
    }
}
