//! A small tree of files as one text. What is hostile in a package is mostly a few bytes in odd places of large empty files, or
//! names that no archive likes: a text shows both, and takes little room.
//!
//! ```text
//! # for people
//! dir package/Virtual Hard Disks
//! file 4194304 package/Virtual Hard Disks/disk.vhdx
//! 0 7668647866696c65                    bytes from an offset, all in hexadecimal
//! 2000 "<configuration>\r\n"            UTF-8 from an offset
//! 2040 L"text"                          the same in UTF-16LE
//! * 12                                  the line before, twelve more times behind it
//! files 3 package/Snapshots/{}.vmcx     empty files, numbered
//! link package/disk.vhdx -> ../outside/secret.vhdx
//! same package/a.vhdx -> package/b.vhdx
//! pipe package/pipe
//! socket package/socket
//! ```
//!
//! What is not said of a file is zero and a hole. In paths and text `\` escapes as in Rust; `\xFF` is a byte of a path.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// Zeros after which the bytes before and behind are told apart.
const GAP: usize = 16;
/// Bytes, or characters, on a line: a multiple of many sizes of records, so that equal ones make equal lines.
const LINE: usize = 72;

/// A tree of files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bundle {
    /// What it is about; one line.
    pub about: String,
    /// In the order in which they are made.
    pub entries: Vec<Entry>,
}

/// One thing in a tree. Paths are bytes, with `/`, below the top.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A directory, and those above it.
    Dir(Vec<u8>),
    /// A file.
    File(Vec<u8>, Sparse),
    /// Empty files: `{}` in the path is a number from 0.
    Files(u32, Vec<u8>),
    /// A symbolic link and what it says.
    Link(Vec<u8>, Vec<u8>),
    /// A hard link and the file it is.
    Same(Vec<u8>, Vec<u8>),
    /// A named pipe.
    Pipe(Vec<u8>),
    /// A socket that nobody listens on.
    Socket(Vec<u8>),
}

/// A file of zeros with something in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sparse {
    /// Bytes.
    pub size: u64,
    pages: BTreeMap<u64, Vec<u8>>,
}

impl Sparse {
    const PAGE: u64 = 4096;

    /// `size` zeros.
    #[must_use]
    pub fn new(size: u64) -> Self {
        Self { size, pages: BTreeMap::new() }
    }

    /// Puts bytes down; the file grows where they lie beyond its end.
    pub fn put(&mut self, offset: u64, bytes: &[u8]) {
        self.size = self.size.max(offset + bytes.len() as u64);
        let (mut at, mut rest) = (offset, bytes);
        while !rest.is_empty() {
            let within = (at % Self::PAGE) as usize;
            let (part, after) = rest.split_at(rest.len().min(Self::PAGE as usize - within));
            let page = self.pages.entry(at / Self::PAGE).or_insert_with(|| vec![0; Self::PAGE as usize]);
            page[within..within + part.len()].copy_from_slice(part);
            (at, rest) = (at + part.len() as u64, after);
        }
    }

    /// `length` bytes from `offset`.
    #[must_use]
    pub fn get(&self, offset: u64, length: usize) -> Vec<u8> {
        let byte = |at: u64| self.pages.get(&(at / Self::PAGE)).map_or(0, |p| p[(at % Self::PAGE) as usize]);
        (offset..offset + length as u64).map(byte).collect()
    }

    /// Runs of bytes with few zeros in them, by offset.
    fn runs(&self) -> Vec<(u64, Vec<u8>)> {
        let mut stretches: Vec<(u64, Vec<u8>)> = Vec::new();
        for (number, page) in &self.pages {
            match stretches.last_mut() {
                Some((start, bytes)) if *start + bytes.len() as u64 == number * Self::PAGE => {
                    bytes.extend_from_slice(page);
                }
                _ => stretches.push((number * Self::PAGE, page.clone())),
            }
        }
        let mut runs = Vec::new();
        for (start, bytes) in stretches {
            let mut at = 0;
            while let Some(from) = bytes[at..].iter().position(|b| *b != 0).map(|n| at + n) {
                let mut end = from;
                let mut zeros = 0;
                for (n, byte) in bytes.iter().enumerate().skip(from) {
                    zeros = if *byte == 0 { zeros + 1 } else { 0 };
                    if *byte != 0 {
                        end = n + 1;
                    } else if zeros >= GAP {
                        break;
                    }
                }
                runs.push((start + from as u64, bytes[from..end].to_vec()));
                at = end;
            }
        }
        runs
    }
}

impl From<Vec<u8>> for Sparse {
    fn from(bytes: Vec<u8>) -> Self {
        let mut file = Self::new(bytes.len() as u64);
        file.put(0, &bytes);
        file
    }
}

impl Bundle {
    /// The text.
    #[must_use]
    pub fn pack(&self) -> String {
        let mut out = format!("# {}\n", self.about);
        for entry in &self.entries {
            let _ = match entry {
                Entry::Dir(path) => writeln!(out, "dir {}", escaped(path)),
                Entry::Files(count, path) => writeln!(out, "files {count} {}", escaped(path)),
                Entry::Link(path, to) => writeln!(out, "link {} -> {}", escaped(path), escaped(to)),
                Entry::Same(path, to) => writeln!(out, "same {} -> {}", escaped(path), escaped(to)),
                Entry::Pipe(path) => writeln!(out, "pipe {}", escaped(path)),
                Entry::Socket(path) => writeln!(out, "socket {}", escaped(path)),
                Entry::File(path, content) => {
                    let _ = writeln!(out, "file {} {}", content.size, escaped(path));
                    let mut lines: Vec<(u64, usize, String)> = Vec::new();
                    for (offset, bytes) in content.runs() {
                        lines.extend(pieces(offset, &bytes));
                    }
                    print_lines(&mut out, &lines);
                    Ok(())
                }
            };
        }
        out
    }

    /// The tree that a text describes.
    ///
    /// # Panics
    /// When it is no such text; the line is in the message.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut bundle = Self::default();
        let mut last: (u64, Vec<u8>) = (0, Vec::new());
        for (number, line) in text.lines().enumerate() {
            let bad = || -> ! { panic!("line {}: `{line}`", number + 1) };
            let (word, rest) = line.split_once(' ').unwrap_or_else(|| bad());
            let pair = || {
                let (path, to) = rest.split_once(" -> ").unwrap_or_else(|| bad());
                (unescaped(path), unescaped(to))
            };
            let counted = || {
                let (count, path) = rest.split_once(' ').unwrap_or_else(|| bad());
                (count.parse::<u64>().unwrap_or_else(|_| bad()), unescaped(path))
            };
            let entry = match word {
                "#" => {
                    rest.clone_into(&mut bundle.about);
                    continue;
                }
                "dir" => Entry::Dir(unescaped(rest)),
                "file" => {
                    let (size, path) = counted();
                    Entry::File(path, Sparse::new(size))
                }
                "files" => {
                    let (count, path) = counted();
                    Entry::Files(u32::try_from(count).unwrap_or_else(|_| bad()), path)
                }
                "link" => {
                    let (path, to) = pair();
                    Entry::Link(path, to)
                }
                "same" => {
                    let (path, to) = pair();
                    Entry::Same(path, to)
                }
                "pipe" => Entry::Pipe(unescaped(rest)),
                "socket" => Entry::Socket(unescaped(rest)),
                offset => {
                    let Some(Entry::File(_, content)) = bundle.entries.last_mut() else { bad() };
                    let size = content.size;
                    let (at, count, bytes) = if offset == "*" {
                        let count = rest.parse::<u64>().unwrap_or_else(|_| bad());
                        (last.0, count, std::mem::take(&mut last.1))
                    } else {
                        (u64::from_str_radix(offset, 16).unwrap_or_else(|_| bad()), 1, data(rest))
                    };
                    for n in 0..count {
                        content.put(at + n * bytes.len() as u64, &bytes);
                    }
                    // Half of a last character may be one too many.
                    content.size = size;
                    last = (at + count * bytes.len() as u64, bytes);
                    continue;
                }
            };
            bundle.entries.push(entry);
        }
        bundle
    }

    /// Makes the tree below `top`, which must exist.
    ///
    /// # Panics
    /// When something cannot be made.
    pub fn unpack(&self, top: &Path) {
        for entry in &self.entries {
            match entry {
                Entry::Dir(path) => fs::create_dir_all(place(top, path)).expect("a directory"),
                Entry::File(path, content) => {
                    let file = File::create(made(top, path)).expect("a file");
                    for (number, page) in &content.pages {
                        file.write_all_at(page, number * Sparse::PAGE).expect("room for it");
                    }
                    file.set_len(content.size).expect("a size that the file system takes");
                }
                Entry::Files(count, path) => {
                    let pattern = String::from_utf8_lossy(path);
                    for n in 0..*count {
                        let path = pattern.replace("{}", &n.to_string());
                        File::create(made(top, path.as_bytes())).expect("a file");
                    }
                }
                Entry::Link(path, to) => {
                    let to = PathBuf::from(std::ffi::OsString::from_vec(to.clone()));
                    std::os::unix::fs::symlink(to, made(top, path)).expect("a link");
                }
                Entry::Same(path, to) => {
                    fs::hard_link(place(top, to), made(top, path)).expect("a hard link");
                }
                Entry::Pipe(path) => {
                    let path = made(top, path);
                    let made =
                        std::process::Command::new("mkfifo").arg(&path).status().expect("mkfifo starts");
                    assert!(made.success(), "no pipe at {}", path.display());
                }
                Entry::Socket(path) => {
                    // Its name may be longer than a socket's address may be.
                    let path = made(top, path);
                    let short = top.join("~bound");
                    std::os::unix::net::UnixListener::bind(&short).expect("a socket");
                    fs::rename(short, path).expect("the socket's place");
                }
            }
        }
    }
}

fn place(top: &Path, path: &[u8]) -> PathBuf {
    top.join(std::ffi::OsString::from_vec(path.to_vec()))
}

/// [`place`], with the directories above made.
fn made(top: &Path, path: &[u8]) -> PathBuf {
    let path = place(top, path);
    fs::create_dir_all(path.parent().expect("it lies below the top")).expect("directories");
    path
}

/// One run as lines: offset, bytes they stand for, text.
fn pieces(offset: u64, run: &[u8]) -> Vec<(u64, usize, String)> {
    let shown = |text: &str| text.chars().all(|c| !c.is_control() || matches!(c, '\n' | '\r' | '\t'));
    if let Ok(text) = std::str::from_utf8(run)
        && shown(text)
        && text.len() >= 4
    {
        return texts(offset, text, "", str::len);
    }
    // The last character's upper byte may be the first of the zeros behind.
    let mut even = run.to_vec();
    even.resize(run.len().next_multiple_of(2), 0);
    let units: Vec<u16> = even.as_chunks::<2>().0.iter().map(|pair| u16::from_le_bytes(*pair)).collect();
    if let Ok(text) = String::from_utf16(&units)
        && shown(&text)
        && run.iter().filter(|b| **b == 0).count() * 3 >= run.len()
        && run.len() >= 8
    {
        return texts(offset, &text, "L", |text| text.encode_utf16().count() * 2);
    }
    let lines = run.chunks(LINE).enumerate();
    lines.map(|(n, bytes)| (offset + (n * LINE) as u64, bytes.len(), hex(bytes))).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

fn texts(offset: u64, text: &str, prefix: &str, length: fn(&str) -> usize) -> Vec<(u64, usize, String)> {
    let mut lines = Vec::new();
    let (mut at, mut rest) = (offset, text);
    while !rest.is_empty() {
        let most = rest.char_indices().nth(LINE).map_or(rest.len(), |(end, _)| end);
        let end = rest[..most].find('\n').map_or(most, |n| n + 1);
        let (line, after) = rest.split_at(end);
        lines.push((at, length(line), format!("{prefix}{line:?}")));
        (at, rest) = (at + length(line) as u64, after);
    }
    lines
}

/// Prints lines, equal ones behind each other as a count.
fn print_lines(out: &mut String, lines: &[(u64, usize, String)]) {
    let mut at = 0;
    while let Some((offset, length, text)) = lines.get(at) {
        let _ = writeln!(out, "{offset:x} {text}");
        let next = |n: usize| offset + (n * length) as u64;
        let same = lines[at + 1..].iter().zip(1..);
        let count = same.take_while(|(line, n)| (line.0, &line.2) == (next(*n), text)).count();
        if count > 0 {
            let _ = writeln!(out, "* {count}");
        }
        at += count + 1;
    }
}

/// A line's bytes.
fn data(text: &str) -> Vec<u8> {
    let quoted = |text: &str| unescaped(text.strip_suffix('"').expect("a quotation mark at the end"));
    if let Some(text) = text.strip_prefix("L\"") {
        let text = String::from_utf8(quoted(text)).expect("UTF-8");
        return text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    }
    if let Some(text) = text.strip_prefix('"') {
        return quoted(text);
    }
    let digits = text.as_bytes().chunks(2);
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    digits.map(|pair| byte(pair).expect("hexadecimal")).collect()
}

/// A path as it is shown: what is no plain text is escaped.
fn escaped(path: &[u8]) -> String {
    let mut out = String::new();
    for chunk in path.utf8_chunks() {
        let _ = write!(
            out,
            "{}",
            chunk.valid().escape_debug().to_string().replace("\\'", "'").replace("\\\"", "\"")
        );
        for byte in chunk.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out
}

/// Undoes [`escaped`] and what `{:?}` does to a string.
fn unescaped(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some((plain, after)) = rest.split_once('\\') {
        out.extend_from_slice(plain.as_bytes());
        let mut chars = after.chars();
        let mut put = |c: char| out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        rest = match chars.next().expect("something behind a backslash") {
            'n' => {
                put('\n');
                chars.as_str()
            }
            'r' => {
                put('\r');
                chars.as_str()
            }
            't' => {
                put('\t');
                chars.as_str()
            }
            '0' => {
                put('\0');
                chars.as_str()
            }
            'x' => {
                let (digits, after) = chars.as_str().split_at(2);
                out.push(u8::from_str_radix(digits, 16).expect("hexadecimal"));
                after
            }
            'u' => {
                let (digits, after) = chars.as_str().split_once('}').expect("a closing brace");
                let code = u32::from_str_radix(digits.trim_start_matches('{'), 16).expect("hexadecimal");
                put(char::from_u32(code).expect("a character"));
                after
            }
            other => {
                put(other);
                chars.as_str()
            }
        };
    }
    out.extend_from_slice(rest.as_bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_comes_back() {
        let mut file = Sparse::new(1 << 40);
        file.put(0, b"vhdxfile");
        file.put(
            4090,
            &"text over the edge of a page\r\nand \"more\""
                .encode_utf16()
                .flat_map(u16::to_le_bytes)
                .collect::<Vec<u8>>(),
        );
        file.put(100_000, &[0xee, 1, 2, 3].repeat(10_000));
        file.put((1 << 40) - 3, &[1, 2, 3]);
        let entries = vec![
            Entry::Dir(b"a b/c".to_vec()),
            Entry::File(b"a b/\xff\xfe\n\\x\xe2\x80\xae".to_vec(), file),
            Entry::File(b"plain".to_vec(), Sparse::from(b"just text\nin \\two lines".to_vec())),
            Entry::Files(3, b"n/{}".to_vec()),
            Entry::Link(b"l".to_vec(), b"../x".to_vec()),
            Entry::Same(b"s".to_vec(), b"plain".to_vec()),
            Entry::Pipe(b"p".to_vec()),
            Entry::Socket(b"k".to_vec()),
        ];
        let bundle = Bundle { about: "a test".to_owned(), entries };
        let text = bundle.pack();
        assert!(text.len() < 2500, "{text}");
        assert_eq!(Bundle::parse(&text), bundle, "{text}");
        assert_eq!(Bundle::parse(&text).pack(), text);
        let scratch = crate::Scratch::new();
        bundle.unpack(scratch.path());
        assert_eq!(fs::metadata(scratch.join("s")).expect("there").len(), 23);
        assert_eq!(fs::read_link(scratch.join("l")).expect("a link"), Path::new("../x"));
        assert_eq!(fs::read_dir(scratch.join("n")).expect("there").count(), 3);
    }
}
