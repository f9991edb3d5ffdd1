//! What a guest sees of its machine: firmware, Secure Boot, TPM, disks, DVD, keyboard, and who else is on its network.
//!
//! That an unprepared guest boots at all, that a loader in `EFI/debian` is found, and NAT, are told in `machines.rs`.

#![expect(clippy::panic, reason = "a test that fails says why")]

use harness::guest::image;
use harness::oracle::sha256;
use harness::scratch::noise;
use harness::{Daemon, Guest, need};
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A raw disk of a machine's own, made of a guest's.
fn disk(folder: &Path, name: &str, guest: &str) -> Result<PathBuf, String> {
    let path = folder.join(name);
    let copied = Command::new("cp").arg("--sparse=always").arg(image(guest)?).arg(&path).status();
    assert!(copied.is_ok_and(|s| s.success()), "no copy of {guest}");
    Ok(path)
}

/// The field of a guest's ready line.
#[track_caller]
fn field<'a>(ready: &'a str, name: &str) -> &'a str {
    let value = ready.split_whitespace().find_map(|f| f.strip_prefix(name)?.strip_prefix('='));
    value.unwrap_or_else(|| panic!("no {name} in: {ready}"))
}

/// Has the guest hash its DVD; a drive tells of a change of media by failing the first request after it.
#[track_caller]
fn dvd(guest: &Guest<'_>) -> String {
    let line = "head -c 1 /dev/sr0 >/dev/null 2>&1; echo DVD $(sha256sum /dev/sr0 2>&1)";
    guest.ask(line, "DVD ")
}

/// UEFI, Secure Boot on, TPM, a disk on hardware that needs no driver, DVD, display and keyboard, in one guest.
#[test]
fn a_generation_2_guest_sees_all_of_its_machine() {
    let daemon = Daemon::start();
    let home = daemon.home();
    let disk = need!(disk(home, "disk.raw", "boot-plain.raw"));
    let images = [noise(1, 1 << 20), noise(2, 3 << 20)];
    let [first, second] = ["first.iso", "second.iso"].map(|n| home.join(n));
    fs::write(&first, &images[0]).expect("an image");
    fs::write(&second, &images[1]).expect("an image");
    let define = ["machine", "define", "whole", "--memory", "512", "--tpm", "--switch", "", "--dvd"];
    daemon
        .run(define.map(AsRef::as_ref).into_iter().chain([
            first.as_os_str(),
            "--disk".as_ref(),
            disk.as_os_str(),
        ]))
        .ok();

    let guest = Guest::start(&daemon, "whole");
    for (name, value) in [("efi", "1"), ("sb", "1"), ("tpm", "/dev/tpm0")] {
        assert_eq!(field(&guest.ready, name), value, "{}", guest.ready);
    }
    let disks = field(&guest.ready, "disks");
    assert!(disks.contains("sda:98304,") && disks.contains("sr0:1024,"), "{}", guest.ready);

    assert!(dvd(&guest).contains(&sha256(&images[0])), "another DVD than was put in");
    daemon.run(["machine", "eject", "whole"]).ok();
    let empty = dvd(&guest);
    assert!(empty.to_lowercase().contains("no medium"), "the drive is not empty: {empty}");
    daemon.run(["machine".as_ref(), "insert".as_ref(), "whole".as_ref(), second.as_os_str()]).ok();
    assert!(dvd(&guest).contains(&sha256(&images[1])), "another DVD than was put in");

    let picture = home.join("screen.png");
    daemon.run(["machine".as_ref(), "screenshot".as_ref(), "whole".as_ref(), picture.as_os_str()]).ok();
    let png = fs::read(&picture).expect("the picture");
    assert!(png.starts_with(b"\x89PNG\r\n\x1a\n") && png.ends_with(b"IEND\xaeB`\x82"), "no whole PNG");
    let again =
        daemon.run(["machine".as_ref(), "screenshot".as_ref(), "whole".as_ref(), picture.as_os_str()]);
    assert!(again.refused().contains("exists"), "{again}");

    // The keyboard is open before a key is pressed, so none can be missed. `a` goes down: type 1, code 30, value 1.
    let keyboard = "for e in /sys/class/input/event*; do grep -q Keyboard $e/device/name || grep -q keyboard $e/device/name && k=${e##*/}; done";
    guest.ask(&format!("{keyboard}; exec 7</dev/input/$k; echo LISTENS ''$k"), "LISTENS event");
    daemon.run(["machine", "send-keys", "whole", "a"]).ok();
    let seen = guest
        .ask("echo KEY ''$(dd bs=24 count=3 <&7 2>/dev/null | od -An -tu2 -w24 -v | tr '\\n' ';')", "KEY ");
    let pressed = seen.split(';').any(|event| {
        let words: Vec<&str> = event.split_whitespace().collect();
        words.ends_with(&["1", "30", "1", "0"])
    });
    assert!(pressed, "the guest saw no `a`: {seen}");

    daemon.run(["machine", "set", "whole", "--notes", "still running"]).ok();
    let refused = daemon.run(["machine", "set", "whole", "--memory", "1024"]);
    assert_eq!(refused.code, Some(5), "{refused}");
    guest.stop();
    daemon.run(["machine", "set", "whole", "--dvd", ""]).ok();
    let shown = daemon.run(["machine", "show", "whole"]);
    assert!(shown.ok().contains("empty"), "the drive is empty again: {shown}");
}

/// Guests of both generations on one private switch reach each other, and neither has a way out.
#[test]
fn guests_on_a_private_switch_reach_each_other_and_nobody_else() {
    let daemon = Daemon::start();
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let port = listener.local_addr().expect("an address").port();
    daemon.run(["switch", "create", "lan", "--kind", "private"]).ok();
    let machines = [("one", "1"), ("two", "2")];
    for (name, generation) in machines {
        let disk = need!(disk(daemon.home(), &format!("{name}.raw"), "boot-plain.raw"));
        let define = [
            "machine",
            "define",
            name,
            "--generation",
            generation,
            "--memory",
            "512",
            "--switch",
            "lan",
            "--disk",
        ];
        daemon.run(define.map(AsRef::as_ref).into_iter().chain([disk.as_os_str()])).ok();
    }
    // Both at once: booting is most of the time this takes.
    for (name, _) in machines {
        daemon.run(["machine", "start", name]).ok();
    }
    let [one, two] = machines.map(|(name, _)| Guest::wait(&daemon, name));
    assert_eq!((field(&one.ready, "efi"), field(&two.ready, "efi")), ("0", "1"));
    for (guest, address) in [(&one, 1), (&two, 2)] {
        // As if the host's NAT were there: were it reachable at all, this is how.
        guest.ask(
            &format!("ip link set eth0 up; ip addr add 10.0.2.10{address}/24 dev eth0 && echo ADDRESS ''SET"),
            "ADDRESS SET",
        );
    }
    one.ask("echo 'from one' >/tmp/page; (nc -l -p 8000 </tmp/page >/dev/null; echo SERVED ''IT) & echo SERVES ''IT", "SERVES IT");
    let got = two.ask("echo GOT $(timeout 60 nc -w 30 10.0.2.101 8000 </dev/null)", "GOT ");
    assert!(got.contains("GOT from one"), "{got}");

    let ping =
        two.ask("ping -c 2 -W 20 10.0.2.101 >/dev/null && echo PING ''OK || echo PING ''FAILED", "PING ");
    assert!(ping.contains("PING OK"), "{ping}");
    for guest in [&one, &two] {
        let answer = guest.ask(&format!("get http://10.0.2.2:{port}/"), "GET-");
        assert!(answer.contains("GET-FAILED"), "a guest on a private switch reached the host: {answer}");
    }
    listener.set_nonblocking(true).expect("settable");
    assert!(listener.accept().is_err(), "somebody came to the host's server");
    one.stop();
    two.stop();
}
