//! Real guests under emulation: both generations boot, and everything one does with a running machine works.

mod support;

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use engine::{
    Accel, Chipset, DiskBus, DvdSpec, GuestErrorKind, GuestEvent, Mac, NicBackend, NicModel, NicSpec,
    PictureFormat, RunState, ShutdownVia, StoppedBy, keys,
};
use support::{BOOT, Bench, Console, SOON, event, prepared};

fn nic(id: &str, model: NicModel, backend: NicBackend, last: u8) -> NicSpec {
    NicSpec { id: id.into(), model, mac: Mac([0, 0x15, 0x5d, 0, 0, last]), backend, boot_index: None }
}

#[test]
fn generation_1_boots_from_ide_and_does_what_it_is_told() {
    let Some(prepared) = prepared() else { return };
    let bench = Bench::new();
    let mut spec = bench.bootable(&prepared, Chipset::Pc, DiskBus::Ide);
    spec.vnc = true;
    spec.nics.push(nic("cut", NicModel::VirtioNet, NicBackend::None, 1));
    spec.nics.push(nic("nat", NicModel::VirtioNet, NicBackend::User, 2));
    let iso = bench.path("a disc, inserted.iso");
    fs::write(&iso, vec![b'A'; 1 << 20]).unwrap();
    let other = bench.path("b.iso");
    fs::write(&other, vec![b'B'; 1 << 20]).unwrap();
    spec.drives.push(DvdSpec {
        id: "dvd".into(),
        bus: DiskBus::Ide,
        slot: 2,
        media: Some(iso.clone()),
        boot_index: None,
    });
    let started = Instant::now();
    let (guest, events) = bench.start(&spec);
    println!("started in {:?}", started.elapsed());
    assert_eq!(events.recv_timeout(SOON).unwrap(), GuestEvent::Started);
    assert_eq!(guest.state(), RunState::Running);
    assert!(guest.resolved().machine_version.starts_with("pc-i440fx-"), "{:?}", guest.resolved());
    assert_eq!(guest.resolved().accel, Accel::Tcg);
    let mut console = Console::open(guest.as_ref());
    let ready = console.wait("GUEST-READY", BOOT);
    println!("{ready} after {:?}", started.elapsed());
    assert!(ready.contains("efi=0"));
    // No prompt in front of answers.
    console.send("PS1=; echo; echo QUIET");
    console.wait("QUIET", SOON);
    let log = fs::read_to_string(guest.serial_log(0).unwrap()).unwrap();
    assert!(log.contains("GUEST-READY"), "the log has what the console said");

    // Cables: one is out, one in, and each can be moved.
    console.send("ip link set eth0 up; ip link set eth1 up; for i in /sys/class/net/eth*; do echo LINK-$(cat $i/address)-$(cat $i/carrier); done");
    assert_eq!(console.wait("LINK-00:15:5d:00:00:01", SOON), "LINK-00:15:5d:00:00:01-0");
    assert_eq!(console.wait("LINK-00:15:5d:00:00:02", SOON), "LINK-00:15:5d:00:00:02-1");
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    let served = std::thread::spawn(move || {
        let (mut stream, _) = server.accept().unwrap();
        stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nHELLO-FROM-THE-HOST\n").unwrap();
    });
    console.send(&format!("ip addr add 10.0.2.15/24 dev eth1; wget -q -O - http://10.0.2.2:{port}/"));
    console.wait("HELLO-FROM-THE-HOST", SOON);
    served.join().unwrap();
    guest.set_link("nat", false).unwrap();
    console.send("while [ $(cat /sys/class/net/eth1/carrier) = 1 ]; do usleep 1000; done; echo CUT-OFF");
    console.wait("CUT-OFF", SOON);
    guest.set_link("nat", true).unwrap();
    assert_eq!(guest.set_link("cut", true).unwrap_err().kind(), GuestErrorKind::Unsupported);
    assert_eq!(guest.set_link("none", true).unwrap_err().kind(), GuestErrorKind::NotFound);

    // Discs.
    // The kernel may see the empty drive first.
    let first = "x=; while [ -z \"$x\" ]; do x=$(dd if=/dev/sr0 bs=1 count=4 2>/dev/null); usleep 10000; done; echo DISC-$x";
    console.send(first);
    assert_eq!(console.wait("DISC-", SOON), "DISC-AAAA");
    guest.change_media("dvd", Some(&other), true).unwrap();
    console.send(first);
    assert_eq!(console.wait("DISC-", SOON), "DISC-BBBB");
    guest.change_media("dvd", None, true).unwrap();
    guest.eject("dvd", true).unwrap();
    guest.change_media("dvd", Some(&iso), true).unwrap();
    let missing = guest.change_media("dvd", Some(&bench.path("no.iso")), true).unwrap_err();
    assert_eq!(missing.kind(), GuestErrorKind::NotFound);
    assert_eq!(guest.eject("no", true).unwrap_err().kind(), GuestErrorKind::NotFound);

    // Display and keyboard.
    let picture = bench.path("screen.png");
    assert_eq!(guest.screenshot(&picture, PictureFormat::Png).unwrap(), PictureFormat::Png);
    assert_eq!(&fs::read(&picture).unwrap()[..8], b"\x89PNG\r\n\x1a\n");
    guest.send_keys(&keys::from_text("Hello, World! `~[]{}\\|\n").unwrap()).unwrap();
    guest.send_keys(&["ctrl-alt-f2".parse().unwrap(), "meta".parse().unwrap()]).unwrap();
    let all: Vec<_> = keys::NamedKey::ALL
        .iter()
        .filter(|k| k.name() != "del")
        .map(|k| keys::Key::Named(*k).into())
        .collect();
    guest.send_keys(&all).unwrap();
    let a = "a".parse().unwrap();
    guest.strokes(&[true, false].map(|down| keys::Stroke { key: a, down })).unwrap();
    assert!(guest.vnc_socket().unwrap().exists());

    // The agent.
    guest.agent_ping(SOON).unwrap();
    let interfaces = guest.agent_interfaces(SOON).unwrap();
    assert!(interfaces.iter().any(|i| i.mac == Some(spec.nics[1].mac)), "{interfaces:?}");
    println!("{:?}", guest.agent_os(SOON));

    // Pause and resume.
    guest.pause().unwrap();
    assert_eq!(guest.state(), RunState::Paused);
    guest.pause().unwrap();
    assert_eq!(guest.shutdown().unwrap_err().kind(), GuestErrorKind::WrongState);
    guest.resume().unwrap();
    assert_eq!(guest.state(), RunState::Running);
    assert_eq!(event(&events, |e| *e == GuestEvent::Paused), GuestEvent::Paused);
    assert_eq!(event(&events, |e| *e == GuestEvent::Resumed), GuestEvent::Resumed);

    // An interrupt that cannot be masked.
    guest.interrupt().unwrap();
    console.send("until grep 'NMI: *1 ' /proc/interrupts; do :; done");
    console.wait("NMI:", SOON);

    // Orders that the agent takes. The tiny guest has no /sbin/shutdown of its own; this one says what a reboot would be.
    console.send("mkdir -p /sbin; printf '#!/bin/busybox sh\\ncase \"$*\" in *-r*) exec echo TOLD to reboot >/dev/ttyS0; esac\\nexec /bin/busybox poweroff -f\\n' >/sbin/shutdown; chmod +x /sbin/shutdown; echo MADE");
    console.wait("MADE", SOON);
    guest.reboot().unwrap();
    console.wait("TOLD to reboot", SOON);
    assert_eq!(guest.shutdown().unwrap(), ShutdownVia::Agent);
    event(&events, |e| *e == GuestEvent::ShutdownRequested);
    let last = event(&events, |e| matches!(e, GuestEvent::Stopped { .. } | GuestEvent::Died { .. }));
    assert_eq!(last, GuestEvent::Stopped { by: StoppedBy::Guest });
    assert!(events.recv().is_err(), "that was the last event");
    assert_eq!(guest.state(), RunState::Stopped);
    assert_eq!(guest.pause().unwrap_err().kind(), GuestErrorKind::Gone);
    guest.power_off().unwrap();
}

#[test]
fn generation_2_boots_with_secure_boot_and_tpm_and_its_death_is_noticed() {
    let Some(prepared) = prepared() else { return };
    let bench = Bench::new();
    let mut spec = bench.bootable(&prepared, Chipset::Q35, DiskBus::VirtioScsi);
    bench.secure(&mut spec);
    let started = Instant::now();
    let (guest, events) = bench.start(&spec);
    let mut console = Console::open(guest.as_ref());
    let ready = console.wait("GUEST-READY", BOOT);
    println!("{ready} after {:?}", started.elapsed());
    assert!(ready.contains("efi=1 sb=1 tpm=/dev/tpm0"), "{ready}");
    assert!(bench.path("vars.fd").metadata().unwrap().len() > 0);
    let tpm: i32 = fs::read_to_string(bench.path("run/tpm.pid")).unwrap().trim().parse().unwrap();

    let pid = rustix::process::Pid::from_raw(guest.pid().unwrap() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let killed = Instant::now();
    let last = event(&events, |e| matches!(e, GuestEvent::Died { .. } | GuestEvent::Stopped { .. }));
    assert!(matches!(&last, GuestEvent::Died { message } if message.contains("signal")), "{last:?}");
    assert!(killed.elapsed() < Duration::from_secs(2), "noticed after {:?}", killed.elapsed());
    assert_eq!(guest.state(), RunState::Stopped);
    let gone = |pid: i32| {
        fs::read_to_string(format!("/proc/{pid}/stat"))
            .is_ok_and(|s| !s.contains(") Z "))
            .then_some(())
            .is_none()
    };
    let deadline = Instant::now() + SOON;
    while !gone(tpm) {
        assert!(Instant::now() < deadline, "swtpm outlived its guest");
        std::thread::yield_now();
    }
}
