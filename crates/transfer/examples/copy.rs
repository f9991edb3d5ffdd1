//! Copies a disk image into a new raw file or VHDX, hashing, and prints what it took; `cargo xtask bench` runs it beside
//! `qemu-img convert`.
//!
//! Usage: `copy SRC DST.{vhdx,raw} [BLOCK_MIB [WORKERS [IO_KIB [null]]]]`

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "an example talks to its user")]

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use transfer::source::OpenOptions;
use transfer::{Access, CopyOptions, HostFile, NoJournal, RawSink, Sink, VhdxSink};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut at: Option<&dyn Error> = Some(&*error);
            while let Some(error) = at {
                eprintln!("error: {error}");
                at = error.source();
            }
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (Some(source), Some(target)) = (arguments.first(), arguments.get(1)) else {
        return Err("usage: copy SRC DST.{vhdx,raw} [BLOCK_MIB [WORKERS [IO_KIB]]]".into());
    };
    let number = |at: usize, otherwise: usize| -> Result<usize, Box<dyn Error>> {
        Ok(arguments.get(at).map_or(Ok(otherwise), |text| text.parse())?)
    };
    let defaults = CopyOptions::default();
    let options = CopyOptions {
        workers: number(3, defaults.workers)?,
        io_size: number(4, defaults.io_size >> 10)? << 10,
        ..defaults
    };
    let block_size = u32::try_from(number(2, 32)?)? << 20;

    let begin = Instant::now();
    let source = transfer::source::open(Path::new(source), &OpenOptions::default())?;
    let path = Path::new(target);
    let storage = Arc::new(HostFile::create_new(path, Access::Auto)?);
    let sink: Box<dyn Sink> = if path.extension().is_some_and(|e| e == "vhdx") {
        let create = vhdx::CreateOptions {
            block_size,
            ..vhdx::CreateOptions::dynamic(source.size().next_multiple_of(512))
        };
        Box::new(VhdxSink::create(storage, path, &create)?)
    } else {
        Box::new(RawSink::new(storage, path, source.size())?)
    };
    let copied = transfer::copy(&*source, &*sink, &options, None, &mut NoJournal)?;
    sink.finish()?;
    let seconds = begin.elapsed().as_secs_f64();
    println!(
        "{seconds:.2} s  read {} MiB  written {} MiB  {:.0} MiB/s  root {}",
        copied.read >> 20,
        copied.written >> 20,
        copied.read as f64 / seconds / f64::from(1 << 20),
        copied.root
    );
    Ok(())
}
