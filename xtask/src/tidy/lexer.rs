//! Rust text with comments and string contents blanked, so that a rule about code is not broken by talk about it.
//!
//! Line numbers stay. It is no parser: it knows comments, strings, raw strings and character literals, which is all
//! that can hide code from a search or make a search see what is not code.

/// `text` with every comment and every string's content replaced by spaces.
pub(crate) fn code_of(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    let blank = |out: &mut Vec<u8>, from: &[u8]| {
        out.extend(from.iter().map(|b| if *b == b'\n' { b'\n' } else { b' ' }));
    };
    while i < bytes.len() {
        let rest = &bytes[i..];
        let length = if rest.starts_with(b"//") {
            rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len())
        } else if rest.starts_with(b"/*") {
            block_comment(rest)
        } else if let Some(length) = raw_string(rest, i.checked_sub(1).map(|p| bytes[p])) {
            length
        } else if rest[0] == b'"' {
            quoted(rest)
        } else if rest[0] == b'\'' {
            character(rest).unwrap_or_default() // none: a lifetime
        } else {
            0
        };
        if length == 0 {
            out.push(bytes[i]);
            i += 1;
        } else {
            blank(&mut out, &rest[..length]);
            i += length;
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn block_comment(rest: &[u8]) -> usize {
    let (mut depth, mut i) = (0, 0);
    while i < rest.len() {
        if rest[i..].starts_with(b"/*") {
            depth += 1;
            i += 2;
        } else if rest[i..].starts_with(b"*/") {
            depth -= 1;
            i += 2;
            if depth == 0 {
                return i;
            }
        } else {
            i += 1;
        }
    }
    rest.len()
}

fn raw_string(rest: &[u8], before: Option<u8>) -> Option<usize> {
    if before.is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_') && rest[0] != b'"' {
        return None; // the r of an identifier
    }
    let start = if rest.starts_with(b"br") {
        2
    } else if rest.starts_with(b"r") {
        1
    } else {
        return None;
    };
    let hashes = rest[start..].iter().take_while(|b| **b == b'#').count();
    if rest.get(start + hashes) != Some(&b'"') {
        return None;
    }
    let mut end = vec![b'"'];
    end.resize(hashes + 1, b'#');
    let body = start + hashes + 1;
    let length =
        rest[body..].windows(end.len()).position(|w| w == end).map_or(rest.len(), |p| body + p + end.len());
    Some(length)
}

fn quoted(rest: &[u8]) -> usize {
    let mut i = 1;
    while i < rest.len() {
        match rest[i] {
            b'\\' => i += 2,
            b'"' => return i + 1,
            _ => i += 1,
        }
    }
    rest.len()
}

fn character(rest: &[u8]) -> Option<usize> {
    if rest.get(1) == Some(&b'\\') {
        return rest.iter().skip(3).position(|b| *b == b'\'').map(|p| p + 4);
    }
    // One character of any width, then the closing quote; otherwise it is a lifetime.
    let text = std::str::from_utf8(&rest[1..rest.len().min(6)])
        .or_else(|e| std::str::from_utf8(&rest[1..1 + e.valid_up_to()]));
    let width = text.ok()?.chars().next()?.len_utf8();
    (rest.get(1 + width) == Some(&b'\'')).then_some(width + 2)
}

/// The part of `code` before its test module: what the product is built of.
pub(crate) fn before_tests(code: &str) -> &str {
    let end = code
        .find("#[cfg(test)]\nmod tests")
        .or_else(|| code.find("#[cfg(test)]\r\nmod tests"))
        .unwrap_or(code.len());
    &code[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_and_comments_are_not_code() {
        let text = "let a = \"println!(\\\"x\\\")\"; // println!\nlet b = r#\"unsafe \"quoted\" \"#; /* a /* b */ async */ let c = '\"'; f::<'a>(x)";
        let code = code_of(text);
        for hidden in ["println", "unsafe", "async", "quoted"] {
            assert!(!code.contains(hidden), "{hidden} in {code}");
        }
        assert!(code.contains("let c = ") && code.contains("f::<'a>(x)"), "{code}");
        assert_eq!(code.lines().count(), text.lines().count());
    }

    #[test]
    fn tests_are_cut_off() {
        assert_eq!(before_tests("fn a() {}\n#[cfg(test)]\nmod tests {}\n"), "fn a() {}\n");
    }
}
