//! How fast it is and what it takes, measured: `cargo xtask bench [export|scale|api]`.
//!
//! Each part runs a release build against real files and writes its page below `docs/benchmarks/`; a page's tail, written
//! by hand, is kept. Figures are for pages and for the people who read them; no test asserts any.

mod api;
mod client;
mod daemon;
mod export;
mod posts;
mod report;
mod scale;
mod source;

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::outside::{Outcome, at, output, root, run, state};

const USAGE: &str = "\
usage: cargo xtask bench [PART] [OPTION…]

Parts; without one, all of them:
  export          export speed against qemu-img and the disk's own copy limit
  scale           a simulator with many machines: start, define, list, export, verify; time and memory
  api             Hyper-V's API over a simulator with many machines: instances a second, answers under many clients

Options:
  --rounds N      how often what is compared is repeated, 1 to 50; 5 unless told otherwise
  --machines N    machines, 1 to 10000; unless told otherwise 2000 for `scale`, 10000 for `api`
  --quick         little of everything, and no page is written
  -h, --help      this text
";

/// From this line on a page of results is written by hand, and kept.
const NOTES: &str = "<!-- kept by the bench: -->";

/// Where a run has its files, and the program that is measured.
struct Place {
    dir: PathBuf,
    slipway: PathBuf,
}

impl Place {
    /// A daemon on the simulator, with a socket of that name; where its data is comes from the caller.
    fn serve(&self, name: &str) -> Command {
        let mut command = Command::new(&self.slipway);
        command.args(["serve", "--engine", "sim", "--socket"]).arg(self.dir.join(name).join("s"));
        // What has no place of its own goes here too: it is the disk that is measured.
        command.env("TMPDIR", &self.dir).env("SLIPWAY_CONFIG", "/dev/null");
        command
    }
}

/// How much is measured.
struct Size {
    rounds: usize,
    machines: usize,
}

/// What somebody asked for.
struct Asked {
    parts: Vec<Part>,
    rounds: Option<usize>,
    machines: Option<usize>,
    quick: bool,
}

impl Asked {
    fn size(&self, part: Part) -> Size {
        let machines = if self.quick { 100 } else { part.machines() };
        Size {
            rounds: self.rounds.unwrap_or(if self.quick { 2 } else { 5 }),
            machines: self.machines.unwrap_or(machines),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Export,
    Scale,
    Api,
}

impl Part {
    fn name(self) -> &'static str {
        match self {
            Self::Export => "export",
            Self::Scale => "scale",
            Self::Api => "api",
        }
    }

    /// How many machines it has, unless told otherwise.
    fn machines(self) -> usize {
        if self == Self::Api { 10_000 } else { 2000 }
    }
}

/// `None`: the usage was asked for.
fn parse(arguments: &[String]) -> Outcome<Option<Asked>> {
    let (mut parts, mut rounds, mut machines, mut quick) = (Vec::new(), None, None, false);
    let mut rest = arguments.iter();
    while let Some(word) = rest.next() {
        let mut number = |most: usize| {
            let value = rest.next().and_then(|text| text.parse().ok()).filter(|n| (1..=most).contains(n));
            value.map(Some).ok_or_else(|| format!("{word} takes 1 to {most}"))
        };
        match word.as_str() {
            "export" => parts.push(Part::Export),
            "scale" => parts.push(Part::Scale),
            "api" => parts.push(Part::Api),
            "--rounds" => rounds = number(50)?,
            "--machines" => machines = number(10_000)?,
            "--quick" => quick = true,
            "-h" | "--help" | "help" => return Ok(None),
            other => return Err(format!("no part or option '{other}'\n\n{USAGE}")),
        }
    }
    if parts.is_empty() {
        parts = vec![Part::Export, Part::Scale, Part::Api];
    }
    Ok(Some(Asked { parts, rounds, machines, quick }))
}

pub(crate) fn bench(arguments: &[String]) -> Outcome {
    let Some(asked) = parse(arguments)? else {
        print!("{USAGE}");
        return Ok(());
    };
    run(Command::new("cargo").current_dir(root()).args(["build", "--release", "--locked", "-p", "slipway"]))?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    for &part in &asked.parts {
        let size = asked.size(part);
        let dir = state().join("bench");
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).map_err(at(&dir))?;
        let place = Place { slipway: target.join("release/slipway"), dir };
        let page = match part {
            Part::Export => export::measure(&place, &size),
            Part::Scale => scale::measure(&place, &size),
            Part::Api => api::measure(&place, &size),
        };
        let _ = fs::remove_dir_all(&place.dir);
        let page = page?;
        print!("{page}");
        if !asked.quick {
            write(part, &page)?;
        }
    }
    Ok(())
}

/// Writes a page over the one that is there, up to what was written by hand.
fn write(part: Part, page: &str) -> Outcome {
    let file = root().join(format!("docs/benchmarks/{}.md", part.name()));
    let notes = fs::read_to_string(&file).ok().and_then(|old| old.find(NOTES).map(|at| old[at..].to_owned()));
    let text = format!("{page}\n{}", notes.unwrap_or_else(|| format!("{NOTES}\n")));
    fs::write(&file, text).map_err(at(&file))
}

/// What each page says about the machine.
fn host_facts() -> Vec<(&'static str, String)> {
    let text = |command: &mut Command| {
        output(command).map(|o| String::from_utf8_lossy(&o).trim().to_owned()).unwrap_or_default()
    };
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|l| l.strip_prefix("model name")).unwrap_or_default();
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = memory.lines().find_map(|l| l.strip_prefix("MemTotal:")).unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    vec![
        ("date", text(Command::new("date").arg("+%Y-%m-%d"))),
        ("processor", format!("{cores} cores,{}", model.trim_start_matches(['\t', ' ', ':']).trim_end())),
        ("memory", total.trim().to_owned()),
        ("kernel", text(Command::new("uname").arg("-r"))),
        ("file system", text(Command::new("stat").args(["-f", "-c", "%T"]).arg(state()))),
    ]
}

/// Median with minimum and maximum.
fn spread(values: &[f64]) -> String {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (middle, below) = (sorted.len() / 2, sorted.len().saturating_sub(1) / 2);
    let median = sorted.get(middle).zip(sorted.get(below)).map(|(a, b)| f64::midpoint(*a, *b));
    match (sorted.first(), median, sorted.last()) {
        (Some(least), Some(median), Some(most)) => format!("{median:.2} ({least:.2} to {most:.2})"),
        _ => "-".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Parts, rounds, machines, quick.
    type Asked = (Vec<&'static str>, usize, usize, bool);

    fn asked(line: &str) -> Result<Option<Asked>, String> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let asked = parse(&words)?;
        Ok(asked.map(|a| {
            let size = a.size(a.parts[0]);
            (a.parts.iter().map(|p| p.name()).collect(), size.rounds, size.machines, a.quick)
        }))
    }

    #[test]
    fn help_runs_nothing_and_a_part_runs_alone() {
        for line in ["--help", "-h", "scale --help", "--rounds 3 --help"] {
            assert_eq!(asked(line), Ok(None), "{line}");
        }
        assert_eq!(asked(""), Ok(Some((vec!["export", "scale", "api"], 5, 2000, false))));
        assert_eq!(asked("api"), Ok(Some((vec!["api"], 5, 10_000, false))));
        assert_eq!(asked("scale --machines 50"), Ok(Some((vec!["scale"], 5, 50, false))));
        assert_eq!(asked("--quick export --rounds 9"), Ok(Some((vec!["export"], 9, 100, true))));
        for line in ["exports", "--rounds", "--rounds 0", "--machines 10001", "--rounds x", "3"] {
            assert!(asked(line).is_err(), "{line}");
        }
    }
}
