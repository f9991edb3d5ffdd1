//! The page of the export benchmark.

use std::fmt::Write;

use super::export::{Contest, Measured, machine};
use super::spread;

/// The page as Markdown.
pub(super) fn markdown(contests: &[Contest], limit: &[Measured], data: u64, rounds: usize) -> String {
    let mut text = String::from(
        "# Export against qemu-img\n\n\
         Made by `./x bench`; run it to get your own. Read the ratios: absolute times belong to one disk on one day.\n\n",
    );
    for (what, value) in machine() {
        let _ = writeln!(text, "- {what}: {value}");
    }
    let gib = data as f64 / f64::from(1 << 30);
    let _ = writeln!(
        text,
        "- source: raw disk of 8 GiB, {gib:.2} GiB of data (random, text-like, written zeros) between holes\n\
         - ours: `slipway export` of the machine that has the disk, through the daemon, BLAKE3 on, manifest and rename included\n\
         - peer: `qemu-img convert -W -m 16 -t none -T none -O vhdx`, same block size, no hashing\n\
         - limit: fio reading and writing as many bytes at once, direct, 1 MiB, queue depth 16\n\
         - {rounds} rounds, alternating; median (min to max)\n"
    );
    let _ = writeln!(
        text,
        "| | ours, s | qemu-img, s | ours / qemu-img | ours / limit | peak memory, ours / qemu-img |"
    );
    let _ = writeln!(text, "|---|---|---|---|---|---|");
    for c in contests {
        let ratio: Vec<f64> = c.ours.iter().zip(&c.peer).map(|(a, b)| a.seconds / b.seconds).collect();
        let to_limit: Vec<f64> = c.ours.iter().zip(limit).map(|(a, b)| a.seconds / b.seconds).collect();
        let _ = writeln!(
            text,
            "| {} | {} | {} | **{}** | {} | {} / {} MiB |",
            c.name,
            spread(&seconds(&c.ours)),
            spread(&seconds(&c.peer)),
            spread(&ratio),
            spread(&to_limit),
            peak(&c.ours),
            peak(&c.peer)
        );
    }
    let _ = writeln!(text, "\nCopy limit: {} s.", spread(&seconds(limit)));
    text
}

fn seconds(runs: &[Measured]) -> Vec<f64> {
    runs.iter().map(|m| m.seconds).collect()
}

fn peak(runs: &[Measured]) -> u64 {
    runs.iter().map(|m| m.peak_kib).max().unwrap_or(0) / 1024
}
