//! What a simulated guest does with a line on its console: the commands of our real test guest, as far as a guest
//! without processors can have them.
//!
//! Pure: a line and what the guest knows go in, what it says and does comes out. There is no echo, as on the real one, so
//! that whoever sends a command and waits for an answer does not find the command.

/// What the guest knows of itself.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    pub(super) name: String,
    /// Seconds since it was powered on or reset, with two decimals.
    pub(super) uptime: String,
    pub(super) counter: u64,
    /// Its disks as it names them, by number.
    pub(super) disks: Vec<String>,
    /// The address that it has on its first network, if it is plugged in.
    pub(super) address: Option<String>,
}

/// What comes of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reply {
    Say(String),
    PowerOff,
    Reboot,
    Panic,
    /// Write a pattern to disk number `disk`, from block `offset` on, and say how that went.
    Pattern {
        disk: usize,
        seed: String,
        offset: u64,
        count: u64,
        command: String,
    },
    /// Hash so many blocks of a disk, and say the sum.
    Sum {
        disk: usize,
        offset: u64,
        count: u64,
        command: String,
    },
}

/// Bytes in a block of `pat` and `sum`.
pub(super) const BLOCK: u64 = 64 << 10;
/// Most blocks that one command touches (256 MiB).
pub(super) const MAX_BLOCKS: u64 = 4096;

const HELP: &str = "commands: count | echo TEXT | help | hostname | net | panic | pat DEV SEED OFF_64K COUNT_64K | \
    poweroff | reboot | sum DEV OFF_64K COUNT_64K | uptime";

/// What the guest does with `line`.
pub(super) fn obey(line: &str, facts: &Facts) -> Reply {
    let words: Vec<&str> = line.split_whitespace().collect();
    let say = |text: String| Reply::Say(text);
    match words[..] {
        [] => say(String::new()),
        ["help"] => say(HELP.into()),
        ["count"] => say(format!("COUNTER {}", facts.counter)),
        ["uptime"] => say(format!("UPTIME {}", facts.uptime)),
        ["hostname"] => say(facts.name.clone()),
        ["echo", ..] => say(line.trim_start().strip_prefix("echo").unwrap_or_default().trim_start().into()),
        ["net"] => say(match &facts.address {
            Some(address) => format!("NET-UP {address}"),
            None => "NET-DOWN".into(),
        }),
        ["poweroff", ..] => Reply::PowerOff,
        ["reboot", ..] => Reply::Reboot,
        ["panic"] => Reply::Panic,
        ["pat", device, seed, offset, count] => match range(facts, device, offset, count) {
            Some((disk, offset, count)) => {
                Reply::Pattern { disk, seed: seed.into(), offset, count, command: words[1..].join(" ") }
            }
            None => say(format!("PAT-FAILED {}", words[1..].join(" "))),
        },
        ["sum", device, offset, count] => match range(facts, device, offset, count) {
            Some((disk, offset, count)) => Reply::Sum { disk, offset, count, command: words[1..].join(" ") },
            None => say(format!("SUM-FAILED {}", words[1..].join(" "))),
        },
        [first, ..] => say(format!("sh: {first}: not found")),
    }
}

fn range(facts: &Facts, device: &str, offset: &str, count: &str) -> Option<(usize, u64, u64)> {
    let name = device.strip_prefix("/dev/")?;
    let disk = facts.disks.iter().position(|d| d == name)?;
    let (offset, count): (u64, u64) = (offset.parse().ok()?, count.parse().ok()?);
    let fits = count <= MAX_BLOCKS && offset.checked_add(count)?.checked_mul(BLOCK).is_some();
    fits.then_some((disk, offset, count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_answers_and_nothing_is_guessed() {
        let facts = Facts {
            name: "web".into(),
            uptime: "1.50".into(),
            counter: 3,
            disks: vec!["sda".into(), "sdb".into()],
            address: None,
        };
        let said = |line: &str| match obey(line, &facts) {
            Reply::Say(text) => text,
            other => format!("{other:?}"),
        };
        assert!(said("help").contains("poweroff"));
        assert_eq!(said("count"), "COUNTER 3");
        assert_eq!(said("uptime"), "UPTIME 1.50");
        assert_eq!(said("  echo  two  words "), "two  words ");
        assert_eq!(said("net"), "NET-DOWN");
        assert_eq!(said("frob"), "sh: frob: not found");
        assert_eq!(said(""), "");
        assert_eq!(obey("poweroff -f", &facts), Reply::PowerOff);
        assert_eq!(
            obey("sum /dev/sdb 1 2", &facts),
            Reply::Sum { disk: 1, offset: 1, count: 2, command: "/dev/sdb 1 2".into() }
        );
        for (line, answer) in [
            ("pat /dev/sdc x 0 1", "PAT-FAILED /dev/sdc x 0 1"),
            ("pat sda x 0 1", "PAT-FAILED sda x 0 1"),
            ("pat /dev/sda x 0 4097", "PAT-FAILED /dev/sda x 0 4097"),
            ("sum /dev/sda 99999999999999999999 1", "SUM-FAILED /dev/sda 99999999999999999999 1"),
            ("sum /dev/sda 18446744073709551615 1", "SUM-FAILED /dev/sda 18446744073709551615 1"),
        ] {
            assert_eq!(said(line), answer);
        }
    }
}
