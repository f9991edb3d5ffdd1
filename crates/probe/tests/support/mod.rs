//! Disks made by the usual programs, for tests.

#![allow(clippy::print_stdout, reason = "a skipped test says why")]

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where a program is; the directories of administrators' programs are looked at too.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|directory| directory.join(program))
        .find(|path| path.is_file())
}

/// Says which of the programs is missing, and whether one is.
pub(crate) fn lacks(programs: &[&str]) -> bool {
    let missing: Vec<_> = programs.iter().filter(|program| find(program).is_none()).collect();
    if !missing.is_empty() {
        println!("skipped: these programs are not installed: {missing:?}");
    }
    !missing.is_empty()
}

/// Runs a program with `input` on its standard input; it has to succeed.
pub(crate) fn run(program: &str, arguments: &[&str], input: &str) -> String {
    let mut child = Command::new(find(program).unwrap())
        .args(arguments)
        .env("MTOOLS_SKIP_CHECK", "1")
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// A sparse file of that many bytes.
pub(crate) fn sparse(path: &Path, size: u64) {
    File::create(path).unwrap().set_len(size).unwrap();
}

/// Copies a file into another at an offset.
pub(crate) fn place(part: &Path, whole: &Path, offset: u64) {
    let mut bytes = Vec::new();
    File::open(part).unwrap().read_to_end(&mut bytes).unwrap();
    write_at(whole, offset, &bytes);
}

/// Overwrites bytes of a file.
pub(crate) fn write_at(path: &Path, offset: u64, bytes: &[u8]) {
    let mut file = OpenOptions::new().write(true).open(path).unwrap();
    file.seek(SeekFrom::Start(offset)).unwrap();
    file.write_all(bytes).unwrap();
}

/// The path as text.
pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The smallest bytes that pass for an x86-64 EFI program.
pub(crate) fn pe(machine: u16) -> Vec<u8> {
    let mut bytes = vec![0; 512];
    bytes[..2].copy_from_slice(b"MZ");
    bytes[0x3c] = 0x80;
    bytes[0x80..0x84].copy_from_slice(b"PE\0\0");
    bytes[0x84..0x86].copy_from_slice(&machine.to_le_bytes());
    bytes
}

/// A FAT image of `size` bytes with these files; `options` go to `mkfs.vfat`.
pub(crate) fn fat(directory: &Path, size: u64, options: &[&str], files: &[(&str, Vec<u8>)]) -> PathBuf {
    let image = directory.join("fat.img");
    sparse(&image, size);
    run("mkfs.vfat", &[options, &[text(&image)]].concat(), "");
    let mut made: Vec<String> = Vec::new();
    for (path, content) in files {
        let mut parents: Vec<&str> = path.split('/').collect();
        parents.pop();
        for depth in 1..=parents.len() {
            let parent = format!("::/{}", parents[..depth].join("/"));
            if !made.contains(&parent) {
                run("mmd", &["-i", text(&image), &parent], "");
                made.push(parent);
            }
        }
        let local = directory.join("content");
        std::fs::write(&local, content).unwrap();
        run("mcopy", &["-o", "-i", text(&image), text(&local), &format!("::/{path}")], "");
    }
    image
}
