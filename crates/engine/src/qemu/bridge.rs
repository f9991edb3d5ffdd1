//! Taps on the host's bridges, without being root.
//!
//! `qemu-bridge-helper` (installed setuid, or given CAP_NET_ADMIN) makes a tap, puts it on a bridge that
//! `/etc/qemu/bridge.conf` allows and hands its descriptor back. We run it ourselves instead of letting QEMU do so:
//! QEMU is sandboxed and may start nothing. A tap is gone when the last who holds it is, so nothing needs cleaning.

use std::fs;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType, recvmsg,
    socketpair,
};

use super::install;
use super::process::{self, InheritedFd};
use crate::error::{StartError, StartErrorKind};

const LIMIT: Duration = Duration::from_secs(10);

fn failed(message: String) -> StartError {
    StartError::new(StartErrorKind::NoNetwork, message)
}

/// A tap on `bridge`, as the untagged port of `vlan` if that is given.
pub(super) fn tap(bridge: &str, vlan: Option<u16>) -> Result<InheritedFd, StartError> {
    if !Path::new("/sys/class/net").join(bridge).join("bridge").is_dir() {
        return Err(failed(format!("{bridge} is not a bridge of this host"))
            .with_hint(format!("sudo ip link add {bridge} type bridge && sudo ip link set {bridge} up")));
    }
    let helper = install::bridge_helper()
        .ok_or_else(|| failed("qemu-bridge-helper is not installed".into()).with_hint(install::FIX_QEMU))?;
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        .map_err(|e| failed("no socket pair".into()).with_source(std::io::Error::from(e)))?;
    let mut command = Command::new(&helper);
    // Its end of the socket is its standard input.
    command.args(["--use-vnet", "--fd=0", &format!("--br={bridge}")]);
    command.stdin(Stdio::from(theirs)).stdout(Stdio::null()).stderr(Stdio::piped());
    let broken = |e: std::io::Error| failed(format!("{} cannot be run", helper.display())).with_source(e);
    let mut child = process::spawn(&mut command, &[]).map_err(broken)?;
    drop(command); // and with it our copy of the helper's end
    let process = process::Process::open(child.id()).map_err(broken)?;
    if process.is_some_and(|p| !p.ended(LIMIT)) {
        let _ = child.kill();
    }
    let output = child.wait_with_output().map_err(broken)?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        let error = failed(format!("no port on bridge {bridge}: {}", words.trim()));
        return Err(error.with_hint(format!(
            "allow it: echo 'allow {bridge}' | sudo tee -a /etc/qemu/bridge.conf; and for users other than root: sudo chmod u+s {}",
            helper.display()
        )));
    }
    let tap = receive(&ours).ok_or_else(|| failed("qemu-bridge-helper gave no tap".into()))?;
    if let Some(vlan) = vlan {
        join_vlan(bridge, &tap, vlan)?;
    }
    Ok(InheritedFd::new(tap))
}

/// The descriptor that came with a message.
fn receive(socket: &OwnedFd) -> Option<OwnedFd> {
    let mut byte = [0u8; 1];
    let mut space = [MaybeUninit::<u8>::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC).ok()?;
    control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    })
}

/// Makes a tap the untagged port of a VLAN, which takes privilege.
fn join_vlan(bridge: &str, tap: &OwnedFd, vlan: u16) -> Result<(), StartError> {
    let filtering = fs::read_to_string(format!("/sys/class/net/{bridge}/bridge/vlan_filtering"));
    if filtering.unwrap_or_default().trim() != "1" {
        return Err(failed(format!("bridge {bridge} does not tell VLANs apart"))
            .with_hint(format!("sudo ip link set {bridge} type bridge vlan_filtering 1")));
    }
    // The kernel tells the tap's name beside its descriptor.
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", tap.as_raw_fd())).unwrap_or_default();
    let name = info.lines().find_map(|l| l.strip_prefix("iff:")).map(str::trim).unwrap_or_default();
    let program = process::find_program("bridge").ok_or_else(|| {
        failed("the program bridge is not installed".into()).with_hint("sudo apt install iproute2")
    })?;
    let vid = vlan.to_string();
    // A fresh port is an untagged member of VLAN 1; that it may not be removed is no harm by itself.
    let _ = process::run(Command::new(&program).args(["vlan", "del", "dev", name, "vid", "1"]), LIMIT);
    let add = ["vlan", "add", "dev", name, "vid", &vid, "pvid", "untagged"];
    match process::run(Command::new(&program).args(add), LIMIT) {
        Ok((status, _)) if status.success() => Ok(()),
        Ok((_, words)) => Err(failed(format!("VLAN {vlan} on bridge {bridge}: {}", words.trim())).with_hint(
            "setting a VLAN needs CAP_NET_ADMIN: run the daemon as root or give it that capability",
        )),
        Err(e) => Err(failed(format!("VLAN {vlan} on bridge {bridge}: bridge cannot be run")).with_source(e)),
    }
}

/// The bridges of this host.
pub(super) fn bridges() -> Vec<String> {
    let Ok(all) = fs::read_dir("/sys/class/net") else { return Vec::new() };
    let mut names: Vec<String> = all
        .flatten()
        .filter(|e| e.path().join("bridge").is_dir())
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}
