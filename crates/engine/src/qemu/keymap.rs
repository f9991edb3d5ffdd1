//! Our keys in QEMU's words (`QKeyCode`).

use crate::keys::{Key, NamedKey};

/// The key's qcode.
pub(super) fn qcode(key: Key) -> String {
    match key {
        Key::Char(c) => match c.get() {
            '-' => "minus".into(),
            '=' => "equal".into(),
            '[' => "bracket_left".into(),
            ']' => "bracket_right".into(),
            '\\' => "backslash".into(),
            ';' => "semicolon".into(),
            '\'' => "apostrophe".into(),
            '`' => "grave_accent".into(),
            ',' => "comma".into(),
            '.' => "dot".into(),
            '/' => "slash".into(),
            other => other.to_string(),
        },
        Key::Function(n) => format!("f{}", n.get()),
        Key::Named(n) => named(n).into(),
    }
}

fn named(key: NamedKey) -> &'static str {
    match key {
        NamedKey::Ctrl => "ctrl",
        NamedKey::RightCtrl => "ctrl_r",
        NamedKey::Alt => "alt",
        NamedKey::AltGr => "alt_r",
        NamedKey::Shift => "shift",
        NamedKey::RightShift => "shift_r",
        NamedKey::Meta => "meta_l",
        NamedKey::RightMeta => "meta_r",
        NamedKey::Menu => "compose",
        NamedKey::Enter => "ret",
        NamedKey::Esc => "esc",
        NamedKey::Tab => "tab",
        NamedKey::Space => "spc",
        NamedKey::Backspace => "backspace",
        NamedKey::Delete => "delete",
        NamedKey::Insert => "insert",
        NamedKey::Home => "home",
        NamedKey::End => "end",
        NamedKey::PageUp => "pgup",
        NamedKey::PageDown => "pgdn",
        NamedKey::Up => "up",
        NamedKey::Down => "down",
        NamedKey::Left => "left",
        NamedKey::Right => "right",
        NamedKey::CapsLock => "caps_lock",
        NamedKey::NumLock => "num_lock",
        NamedKey::ScrollLock => "scroll_lock",
        NamedKey::Print => "print",
        NamedKey::Pause => "pause",
    }
}
