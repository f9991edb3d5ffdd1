//! Words for the commands that hints print: whatever a machine, switch or file is called, a shell reads it back as it is.
//!
//! One function for everybody who builds a hint. It is here because this is the lowest crate that prints commands about
//! things with names of their own; what is *in* a command is decided by whoever prints it.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// `text` as one word of a command line.
///
/// Plain where that is enough, else in single quotes. What no quotes can show (control characters, marks that turn the
/// direction of writing, bytes that are no UTF-8) is spelled in the `$'…'` of bash, zsh, ksh and busybox.
pub fn word(text: impl AsRef<OsStr>) -> String {
    let bytes = text.as_ref().as_bytes();
    match std::str::from_utf8(bytes) {
        Ok(text) if text.contains(is_invisible) => spelled(bytes),
        Ok(text) if is_plain(text) => text.to_owned(),
        Ok(text) => format!("'{}'", text.replace('\'', r"'\''")),
        Err(_) => spelled(bytes),
    }
}

/// `path` as one word that no command takes for an option.
pub fn path(path: &Path) -> String {
    if path.as_os_str().as_bytes().starts_with(b"-") { word(Path::new(".").join(path)) } else { word(path) }
}

fn is_plain(text: &str) -> bool {
    // `=x` is a command's path to zsh, `~` a home; letters of any script are letters to every shell.
    let plain = |c: char| c.is_alphanumeric() || "/._-+,@%=:".contains(c);
    !text.is_empty() && !text.starts_with('=') && text.chars().all(plain)
}

/// Characters that would not arrive when the hint is copied from a terminal.
fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202f}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Everything but visible text in octal, of which there are always three digits.
fn spelled(bytes: &[u8]) -> String {
    let mut word = String::from("$'");
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\'' | '\\' => word.extend(['\\', c]),
                c if is_invisible(c) => octal(&mut word, c.encode_utf8(&mut [0; 4]).as_bytes()),
                c => word.push(c),
            }
        }
        octal(&mut word, chunk.invalid());
    }
    word.push('\'');
    word
}

fn octal(word: &mut String, bytes: &[u8]) {
    for byte in bytes {
        let _ = write!(word, "\\{byte:03o}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_only_where_they_must_be() {
        for text in ["web-1", "/srv/vm/a.vhdx", "br0:7", "größe", "Büro", "東京"] {
            assert_eq!(word(text), text);
        }
        assert_eq!(word(""), "''");
        assert_eq!(word("=x"), "'=x'");
        assert_eq!(word("two words"), "'two words'");
        assert_eq!(word("don't"), r"'don'\''t'");
        assert_eq!(word("a\nb"), r"$'a\012b'");
        assert_eq!(word(OsStr::from_bytes(b"a\xff'")), r"$'a\377\''");
        assert_eq!(path(Path::new("-rf")), "./-rf");
    }
}
