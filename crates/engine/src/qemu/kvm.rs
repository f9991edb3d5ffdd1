//! Whether KVM can run a guest here: found out by running one.
//!
//! `/dev/kvm` may open and be of no use: software virtualisation (kvm-pvm, as in nested cloud sandboxes) runs a
//! guest's kernel by interpreting it, so slowly that a boot never ends. So three things must hold, and the first that
//! does not is the reason given:
//!
//! 1. the device is there and may be opened by this user;
//! 2. the processor offers virtualisation (`vmx` or `svm`) and no software stand-in is loaded;
//! 3. a boot sector of ours, under KVM with `-cpu host`, gets through firmware, protected mode and paging and adds up
//!    fifty million numbers in memory, right and in time. Hardware needs a tenth of a second for it, interpretation
//!    minutes.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use super::process::{self, Process};
use crate::host::KvmVerdict;
use crate::spec::Accel;

const DEVICE: &str = "/dev/kvm";
/// Longest the boot sector may take, firmware included; 0.3 s is usual, under emulation too.
const LIMIT: Duration = Duration::from_secs(4);
/// `isa-debug-exit` turns the 0x2a that the payload writes into `0x2a << 1 | 1`.
const GOOD_EXIT: i32 = 85;
const WRONG_EXIT: i32 = 87;

/// The boot sector's code, loaded at 0x7c00 (GNU as, AT&T order):
///
/// ```text
///   cli; xor %ax,%ax; mov %ax,%ds; mov %ax,%ss; mov $0x7c00,%sp
///   lgdtl gdtr; mov %cr0,%eax; or $1,%al; mov %eax,%cr0; ljmp $8,$pm        # protected mode
/// pm: mov $16,%ax; mov %ax,%ds; mov %ax,%es; mov %ax,%ss
///   movl $0x83,0x8000; mov %cr4,%eax; or $0x10,%eax; mov %eax,%cr4          # one 4 MiB page onto itself
///   mov $0x8000,%eax; mov %eax,%cr3; mov %cr0,%eax; or $0x80000000,%eax; mov %eax,%cr0; jmp .+2
///   mov $50000000,%ecx; movl $0,0x9000
/// 1: add %ecx,0x9000; dec %ecx; jnz 1b                                       # 1 + 2 + ... + 50000000, modulo 2^32
///   mov 0x9000,%eax; cmp $0x4f759840,%eax; mov $0x2b,%al; jne 3f; mov $0x2a,%al
/// 3: out %al,$0xf4
/// 2: hlt; jmp 2b
/// gdt: .quad 0, 0x00cf9a000000ffff, 0x00cf92000000ffff; gdtr: .word 23; .long gdt
/// ```
const PAYLOAD: [u8; 158] = [
    0xfa, 0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xd0, 0xbc, 0x00, 0x7c, 0x66, 0x0f, 0x01, 0x16, 0x98, 0x7c, 0x0f,
    0x20, 0xc0, 0x0c, 0x01, 0x0f, 0x22, 0xc0, 0xea, 0x1d, 0x7c, 0x08, 0x00, 0x66, 0xb8, 0x10, 0x00, 0x8e,
    0xd8, 0x8e, 0xc0, 0x8e, 0xd0, 0xc7, 0x05, 0x00, 0x80, 0x00, 0x00, 0x83, 0x00, 0x00, 0x00, 0x0f, 0x20,
    0xe0, 0x83, 0xc8, 0x10, 0x0f, 0x22, 0xe0, 0xb8, 0x00, 0x80, 0x00, 0x00, 0x0f, 0x22, 0xd8, 0x0f, 0x20,
    0xc0, 0x0d, 0x00, 0x00, 0x00, 0x80, 0x0f, 0x22, 0xc0, 0xeb, 0x00, 0xb9, 0x80, 0xf0, 0xfa, 0x02, 0xc7,
    0x05, 0x00, 0x90, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x01, 0x0d, 0x00, 0x90, 0x00, 0x00, 0x49, 0x75,
    0xf7, 0xa1, 0x00, 0x90, 0x00, 0x00, 0x3d, 0x40, 0x98, 0x75, 0x4f, 0xb0, 0x2b, 0x75, 0x02, 0xb0, 0x2a,
    0xe6, 0xf4, 0xf4, 0xeb, 0xfd, 0x8d, 0x74, 0x26, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0xff, 0xff, 0x00, 0x00, 0x00, 0x9a, 0xcf, 0x00, 0xff, 0xff, 0x00, 0x00, 0x00, 0x92, 0xcf, 0x00, 0x17,
    0x00, 0x80, 0x7c, 0x00, 0x00,
];

/// Finds out. Takes at most a little more than the limit above.
pub(super) fn probe(qemu: &Path) -> KvmVerdict {
    let no = |reason: String, fix: Option<&str>| KvmVerdict {
        usable: false,
        reason,
        fix: fix.map(ToOwned::to_owned),
    };
    if let Err(error) = fs::OpenOptions::new().read(true).write(true).open(DEVICE) {
        return match error.kind() {
            io::ErrorKind::NotFound => no(
                format!("{DEVICE} is not there"),
                Some(
                    "turn on virtualisation (VT-x, AMD-V) in the firmware, or nested virtualisation in the hypervisor above, then: sudo modprobe kvm_intel || sudo modprobe kvm_amd",
                ),
            ),
            io::ErrorKind::PermissionDenied => no(
                format!("{DEVICE} may not be opened by this user"),
                Some("sudo usermod -aG kvm $USER, then log in again"),
            ),
            _ => no(format!("{DEVICE} cannot be opened: {error}"), None),
        };
    }
    if Path::new("/sys/module/kvm_pvm").exists() {
        return no(
            "KVM here is kvm-pvm, virtualisation in software: it would run a guest's kernel slower than emulation does"
                .into(),
            None,
        );
    }
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    if !has_virtualisation(&cpuinfo) {
        return no(
            format!("{DEVICE} is there, but the processor offers neither vmx nor svm"),
            Some("turn on nested virtualisation in the hypervisor above this host"),
        );
    }
    match boot(qemu, Accel::Kvm, LIMIT) {
        Ok(()) => KvmVerdict { usable: true, reason: "a probe guest ran under KVM".into(), fix: None },
        Err(reason) => no(format!("a probe guest did not run under KVM: {reason}"), None),
    }
}

fn has_virtualisation(cpuinfo: &str) -> bool {
    (cpuinfo.lines().filter(|l| l.starts_with("flags")))
        .any(|l| l.split_ascii_whitespace().any(|flag| matches!(flag, "vmx" | "svm")))
}

/// Boots the payload; why not, if not.
fn boot(qemu: &Path, accel: Accel, limit: Duration) -> Result<(), String> {
    let broken = |error: io::Error| error.to_string();
    let mut disk = tempfile::NamedTempFile::new().map_err(broken)?;
    let mut sector = [0u8; 512];
    sector[..PAYLOAD.len()].copy_from_slice(&PAYLOAD);
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    disk.write_all(&sector).map_err(broken)?;
    let node = serde_json::json!({
        "driver": "raw", "node-name": "d", "read-only": false,
        "file": {"driver": "file", "filename": disk.path().to_string_lossy()},
    });
    let mut command = Command::new(qemu);
    let (accel, cpu) = if accel == Accel::Kvm { ("kvm", "host") } else { ("tcg", "max") };
    command.args(["-accel", accel, "-cpu", cpu, "-machine", "pc", "-m", "32"]);
    command.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-boot", "menu=off"]);
    command.args(["-blockdev", &node.to_string(), "-device", "ide-hd,drive=d,bootindex=0"]);
    command.args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = process::spawn(&mut command, &[]).map_err(broken)?;
    let process = Process::open(child.id()).map_err(broken)?;
    // A probe that hangs in the kernel would make wait() hang too, so it is reaped elsewhere.
    if let Some(process) = process
        && !process.ended(limit)
    {
        process.kill(Signal::KILL);
        let _ = process::reap(child);
        return Err(format!("it was not done after {} s", limit.as_secs()));
    }
    let status = child.wait().map_err(broken)?;
    match status.code() {
        Some(GOOD_EXIT) => Ok(()),
        Some(WRONG_EXIT) => Err("it computed a wrong sum".into()),
        Some(0) => Err("it ended without an answer (triple fault)".into()),
        _ => {
            let mut words = String::new();
            if let Some(mut stderr) = child.stderr.take() {
                let _ = io::Read::read_to_string(&mut stderr, &mut words);
            }
            Err(words.lines().last().map_or_else(|| status.to_string(), ToOwned::to_owned))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn flags_are_words() {
        assert!(has_virtualisation("model name : vmx\nflags\t\t: fpu svm lm\n"));
        assert!(!has_virtualisation("model name : vmx\nflags\t\t: fpu svm_lock lm\n"));
    }

    #[test]
    fn the_payload_answers_under_emulation_and_kvm_never_hangs() {
        let Some(qemu) = process::find_program("qemu-system-x86_64") else {
            println!("skipped: no qemu-system-x86_64");
            return;
        };
        boot(&qemu, Accel::Tcg, Duration::from_secs(20)).unwrap();
        let start = Instant::now();
        let verdict = probe(&qemu);
        println!("{verdict:?} after {:?}", start.elapsed());
        assert!(start.elapsed() < LIMIT + Duration::from_secs(5));
        if Path::new(DEVICE).exists() {
            let direct = boot(&qemu, Accel::Kvm, LIMIT);
            println!("boot sector under KVM: {direct:?}");
            assert!(direct.is_ok() || !verdict.usable);
        }
    }
}
