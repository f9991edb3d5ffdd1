//! Names that go into file systems of both worlds.
//!
//! A machine's name is free text; a file or folder named after it must be legal on Linux and on Windows alike. What names a
//! machine may have is [`crate::settings::name_problem`]'s part.

/// `name` as a file name that Windows and Unix allow: what they forbid in one becomes `_`.
pub fn safe_file_name(name: &str) -> String {
    let safe: String = name
        .chars()
        .map(|c| {
            if c.is_control() || matches!(c, '/' | '\\' | ':' | '*' | '?' | '"' | '<' | '>' | '|') {
                '_'
            } else {
                c
            }
        })
        .collect();
    // Windows drops trailing dots and blanks; a leading dot hides the folder here.
    let safe = safe.trim().trim_end_matches(['.', ' ']).trim_start_matches('.');
    if safe.is_empty() {
        "_".to_owned()
    } else if is_device(safe) {
        format!("_{safe}")
    } else {
        safe.to_owned()
    }
}

/// Names that are devices on Windows, in every directory and with every extension.
fn is_device(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or(name).trim_end().to_ascii_uppercase();
    match stem.as_str() {
        "CON" | "PRN" | "AUX" | "NUL" => true,
        port => ["COM", "LPT"].iter().any(|kind| {
            port.strip_prefix(kind).is_some_and(|n| {
                matches!(n, "1" | "2" | "3" | "4" | "5" | "6" | "7" | "8" | "9" | "¹" | "²" | "³")
            })
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_folder_names_that_both_worlds_accept() {
        for (name, safe) in [
            ("web", "web"),
            ("a/b\\c:d", "a_b_c_d"),
            ("..", "_"),
            ("x. ", "x"),
            ("日本", "日本"),
            (".hidden", "hidden"),
            ("con", "_con"),
            ("LPT1.a.b", "_LPT1.a.b"),
            ("COM10", "COM10"),
            ("Console", "Console"),
        ] {
            assert_eq!(safe_file_name(name), safe);
        }
    }
}
