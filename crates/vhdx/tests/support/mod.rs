//! What the integration tests share: real samples, and storages that misbehave on purpose.
#![allow(dead_code, reason = "each test binary uses a part")]
#![allow(clippy::print_stdout, reason = "a test that is skipped says why")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

pub(crate) mod build;
pub(crate) mod storage;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The samples directory, or `None` with the reason printed.
pub(crate) fn samples() -> Option<PathBuf> {
    match std::env::var_os("SLIPWAY_SAMPLES") {
        Some(dir) => Some(PathBuf::from(dir)),
        None => {
            println!("skipped: SLIPWAY_SAMPLES does not name a directory of real samples");
            None
        }
    }
}

/// The sample `name` (as in `vhdx/win10-dynamic.vhdx`), unpacked sparsely once into the target directory.
pub(crate) fn sample(dir: &Path, name: &str) -> Option<PathBuf> {
    let plain = dir.join(name);
    if plain.exists() {
        return Some(plain);
    }
    let packed = dir.join(format!("{name}.xz"));
    if !packed.exists() {
        println!("skipped: no sample {name}");
        return None;
    }
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("samples").join(name);
    if !cache.exists() {
        let parent = cache.parent().expect("the cache path has a parent");
        std::fs::create_dir_all(parent).expect("making the cache directory");
        // Tests run side by side, in processes too: unpack under a name of one's own, then rename.
        let own = tempfile::NamedTempFile::new_in(parent).expect("making a temporary file");
        let mut out = own.reopen().expect("opening the temporary file");
        let mut xz = match Command::new("xz").arg("-dc").arg(&packed).stdout(Stdio::piped()).spawn() {
            Ok(child) => child,
            Err(error) => {
                println!("skipped: cannot run xz: {error}");
                return None;
            }
        };
        copy_sparse(&mut xz.stdout.take().expect("xz's output"), &mut out);
        assert!(xz.wait().expect("waiting for xz").success(), "xz -dc {}", packed.display());
        own.persist(&cache).expect("renaming the unpacked sample");
    }
    Some(cache)
}

fn copy_sparse(from: &mut impl std::io::Read, to: &mut File) {
    use std::os::unix::fs::FileExt;
    let mut at = 0;
    let mut buf = vec![0; 1 << 16];
    loop {
        let mut filled = 0;
        while filled < buf.len() {
            match from.read(&mut buf[filled..]).expect("reading from xz") {
                0 => break,
                n => filled += n,
            }
        }
        if filled == 0 {
            break;
        }
        if buf[..filled].iter().any(|byte| *byte != 0) {
            to.write_all_at(&buf[..filled], at).expect("writing the sample");
        }
        at += filled as u64;
    }
    to.set_len(at).expect("setting the sample's length");
}

/// SHA-256 of the whole virtual content, in hex; holes are hashed as zeros without being read.
pub(crate) fn content_hash(image: &vhdx::Image) -> String {
    use sha2::Digest;
    let mut hash = sha2::Sha256::new();
    let zeros = vec![0; 1 << 20];
    let mut buf = vec![0; 1 << 20];
    let mut at = 0;
    for extent in image.extents(0, image.virtual_size()) {
        let extent = extent.expect("mapping");
        assert_eq!(extent.offset, at, "extents are gapless");
        while at < extent.end() {
            let step = (extent.end() - at).min(1 << 20) as usize;
            if extent.kind == vhdx::ExtentKind::Data {
                image.read_at(&mut buf[..step], at).expect("reading");
                hash.update(&buf[..step]);
            } else {
                hash.update(&zeros[..step]);
            }
            at += step as u64;
        }
    }
    assert_eq!(at, image.virtual_size(), "extents cover the disk");
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
