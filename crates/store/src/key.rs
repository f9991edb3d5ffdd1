//! The rules for keys, and the way to put a foreign name into one.

use std::fmt::Write as _;

use crate::{Error, MAX_KEY};

/// Checks that `key` is 1 to [`MAX_KEY`] bytes of printable ASCII without spaces, in segments separated by `/`, none
/// of them empty. Anything a user typed belongs into a value, or through [`escape_segment`].
pub fn check_key(key: &str) -> Result<(), Error> {
    if key.is_empty() {
        return Err(Error::key(key, "it is empty"));
    }
    check_prefix(key)?;
    if key.split('/').any(str::is_empty) {
        return Err(Error::key(key, "it has an empty segment"));
    }
    Ok(())
}

/// Checks a prefix: as a key, but it may be empty, end with `/`, or end inside a segment.
pub(crate) fn check_prefix(prefix: &str) -> Result<(), Error> {
    if prefix.len() > MAX_KEY {
        return Err(Error::key(prefix, "it is longer than 512 bytes"));
    }
    if !prefix.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Error::key(prefix, "it has a character other than printable ASCII without spaces"));
    }
    Ok(())
}

/// The least string greater than every key that starts with `prefix`; `None` for the empty prefix.
pub(crate) fn prefix_end(prefix: &str) -> Option<String> {
    // Prefixes are printable ASCII, so the last byte is at most 0x7E and its successor is still ASCII.
    let mut end = prefix.to_owned();
    let last = end.pop()?;
    end.push(char::from(last as u8 + 1));
    Some(end)
}

/// Turns any name into one segment of a key: bytes other than ASCII letters, digits and `-._~:@+=,` become `%XX`. The
/// empty name becomes `%`. Different names give different segments.
pub fn escape_segment(name: &str) -> String {
    if name.is_empty() {
        return "%".to_owned();
    }
    let mut segment = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~:@+=,".contains(&byte) {
            segment.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(segment, "%{byte:02X}");
        }
    }
    segment
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn keys_follow_the_rules() {
        for good in ["a", "machine/0/x", "job/a-b/event/00000001", "x/~%2F"] {
            check_key(good).unwrap();
        }
        for bad in ["", "/", "/a", "a/", "a//b", "a b", "a\nb", "ä", &"k".repeat(MAX_KEY + 1)] {
            assert!(check_key(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn any_name_becomes_one_distinct_segment(a in ".{0,40}", b in ".{0,40}") {
            let (left, right) = (escape_segment(&a), escape_segment(&b));
            check_key(&left).unwrap();
            prop_assert!(!left.contains('/'));
            prop_assert_eq!(left == right, a == b);
        }

        #[test]
        fn prefix_end_bounds_the_prefix(prefix in "[!-~]{1,8}", rest in "[!-~]{0,8}", other in "[!-~]{0,9}") {
            let end = prefix_end(&prefix).unwrap();
            let inside = format!("{prefix}{rest}");
            prop_assert!(inside < end);
            prop_assert_eq!(other.starts_with(&prefix), other >= prefix && other < end);
        }
    }
}
