//! A shell reads every word of a hint back as it was.

use proptest::prelude::*;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::process::Command;
use transfer::shell::word;

/// What bash makes of the word.
fn read_back(word: &str) -> Vec<u8> {
    let script = format!("printf %s {word}");
    Command::new("bash").args(["-c", &script]).env("LC_ALL", "C.UTF-8").output().expect("bash").stdout
}

#[test]
fn what_shells_act_upon_is_read_back_as_text() {
    let hostile = "it's $HOME `id` $(id) \"x\" \\ * ? [a] {b,c} ~ # ! & | ; < > \u{202e}\u{7}\r\n\té 東 = -";
    assert_eq!(read_back(&word(hostile)), hostile.as_bytes());
    for character in hostile.chars() {
        let text = format!("{character}x");
        assert_eq!(read_back(&word(&text)), text.as_bytes());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_name_that_a_file_can_have_is_read_back(bytes in proptest::collection::vec(1..=255_u8, 0..40)) {
        prop_assert_eq!(read_back(&word(OsStr::from_bytes(&bytes))), bytes);
    }
}
