//! `Msvm_KvpExchangeDataItem`s: what a guest says of itself, as pairs of texts.

use std::net::IpAddr;

use cim::{Instance, Schema, embedded};
use machine::inside::AgentReport;

const CLASS: &str = "Msvm_KvpExchangeDataItem";
/// `Source` of what every guest says of its own accord.
const INTRINSIC: u16 = 2;

fn item(schema: &Schema, name: &str, data: &str) -> String {
    let item = Instance::new(CLASS).with("Name", name).with("Data", data).with("Source", INTRINSIC);
    embedded::write(&item, schema)
}

/// Several addresses of one kind, as guests of Hyper-V write them.
fn joined(addresses: &[IpAddr], kind: fn(&IpAddr) -> bool) -> Option<String> {
    let all: Vec<_> = addresses.iter().filter(|a| kind(a)).map(ToString::to_string).collect();
    (!all.is_empty()).then(|| all.join(";"))
}

/// The pairs that a guest says of its own accord, as far as its agent knows them.
pub(crate) fn intrinsic(schema: &Schema, report: &AgentReport) -> Vec<String> {
    [
        ("FullyQualifiedDomainName", report.host_name.clone()),
        ("OSName", report.os_name.clone()),
        ("OSVersion", report.os_version.clone().or_else(|| report.kernel.clone())),
        ("OSBuildNumber", report.kernel.clone()),
        ("NetworkAddressIPv4", joined(&report.addresses, IpAddr::is_ipv4)),
        ("NetworkAddressIPv6", joined(&report.addresses, IpAddr::is_ipv6)),
    ]
    .into_iter()
    .filter_map(|(name, data)| Some(item(schema, name, &data?)))
    .collect()
}
