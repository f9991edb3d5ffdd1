//! What Linux tells of this host beside what the domain knows: its identifier, its processors' model, memory that is free.
//!
//! Read whenever it is asked for: these numbers change. What this host does not tell stays unknown.

use std::path::Path;

use jiff::Timestamp;
use uuid::Uuid;

/// The identifier of this computer: its firmware's where we may read it (root may), else that of this installation of
/// Linux (`machine-id(5)`), which is a UUID without hyphens.
pub(crate) fn computer_id() -> Option<Uuid> {
    ["/sys/class/dmi/id/product_uuid", "/etc/machine-id"]
        .iter()
        .filter_map(|file| Uuid::try_parse(read(file)?.trim()).ok())
        .find(|id| !id.is_nil())
}

/// What there is of memory, in KiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Memory {
    /// What could be given to programs without swapping.
    pub(crate) available: Option<u64>,
    pub(crate) swap: Option<u64>,
    pub(crate) swap_free: Option<u64>,
}

pub(crate) fn memory() -> Memory {
    read("/proc/meminfo").map(|text| parse_memory(&text)).unwrap_or_default()
}

fn parse_memory(text: &str) -> Memory {
    let kib = |name: &str| field(text, name)?.strip_suffix("kB")?.trim().parse().ok();
    Memory { available: kib("MemAvailable"), swap: kib("SwapTotal"), swap_free: kib("SwapFree") }
}

/// The first processor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Processor {
    /// `Intel(R) Xeon(R) …`.
    pub(crate) model: Option<String>,
    pub(crate) maker: Option<String>,
    /// How fast it runs at most, in MHz; how fast it runs now, where Linux does not know better.
    pub(crate) mhz: Option<u32>,
}

pub(crate) fn processor() -> Processor {
    let mut processor = read("/proc/cpuinfo").map(|text| parse_processor(&text)).unwrap_or_default();
    let most = read("/sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq");
    if let Some(khz) = most.and_then(|text| text.trim().parse::<u32>().ok()) {
        processor.mhz = Some(khz / 1000);
    }
    processor
}

fn parse_processor(text: &str) -> Processor {
    let word = |name: &str| field(text, name).map(str::to_owned).filter(|word| !word.is_empty());
    let mhz = field(text, "cpu MHz").and_then(|text| text.split('.').next()?.parse().ok());
    Processor { model: word("model name"), maker: word("vendor_id"), mhz }
}

/// When this host was started.
pub(crate) fn booted() -> Option<Timestamp> {
    let text = read("/proc/stat")?;
    let seconds = text.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    Timestamp::from_second(seconds).ok()
}

/// What stands behind the first `NAME:`.
fn field<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    lines.into_iter().find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim())
}

fn read(file: &str) -> Option<String> {
    std::fs::read_to_string(Path::new(file)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_linux_prints_is_understood() {
        let memory = parse_memory(
            "MemTotal:       24601160 kB\nMemFree: 1 kB\nMemAvailable:   21000000 kB\nSwapTotal:   2048 kB\nSwapFree: 1024 kB\n",
        );
        assert_eq!(memory, Memory { available: Some(21_000_000), swap: Some(2048), swap_free: Some(1024) });
        let processor = parse_processor(
            "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel name\t: Intel(R) Xeon(R) @ 2.20GHz\ncpu MHz\t\t: 2199.998\n\nprocessor\t: 1\n",
        );
        assert_eq!(
            processor,
            Processor {
                model: Some("Intel(R) Xeon(R) @ 2.20GHz".into()),
                maker: Some("GenuineIntel".into()),
                mhz: Some(2199)
            }
        );
        assert_eq!((parse_memory("MemAvailable: many"), parse_processor("")), Default::default());
    }

    #[test]
    fn this_host_says_what_it_is() {
        assert!(memory().available.is_some_and(|kib| kib > 0));
        assert!(booted().is_some_and(|at| at < Timestamp::now()));
    }
}
