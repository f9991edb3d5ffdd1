//! The recording in README: drawn from a terminal's output line by line, true to it, and short enough to be watched.

use harness::binary::run;
use harness::{Scratch, need, oracle};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What a terminal recording of ours may be at most.
const MAX_SECONDS: f64 = 45.0;
const MAX_BYTES: u64 = 300 << 10;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

/// The drawing of a recording with those events.
fn drawn(python: &str, scratch: &Scratch, events: &[(f64, &str)]) -> String {
    let mut cast = r#"{"version": 2, "width": 20, "height": 4, "title": "a & b"}"#.to_owned();
    for (at, text) in events {
        cast.push_str(&format!("\n{}", serde_json::json!([at, "o", text])));
    }
    let (from, to) = (scratch.join("small.cast"), scratch.join("small.svg"));
    fs::write(&from, cast).expect("written");
    render(python, &from, &to)
}

fn render(python: &str, from: &Path, to: &Path) -> String {
    run(Command::new(python).arg(root().join("tools/record.py")).arg("render").args([from, to])).ok();
    fs::read_to_string(to).expect("drawn")
}

/// Lines of text from top to bottom, each with where it stands; tags and all.
fn lines(svg: &str) -> Vec<(u32, &str)> {
    let inside = svg.split("<g id=\"s\">").nth(1).expect("a column of lines");
    let texts = inside.split("<text y=\"").skip(1);
    texts
        .map(|text| {
            let (y, rest) = text.split_once('"').expect("a place");
            let text = rest.split_once('>').and_then(|(_, t)| t.split_once("</text>")).expect("a text").0;
            (y.parse().expect("a number"), text)
        })
        .collect()
}

/// Percent of the whole and pixels, for each step of an animation.
fn steps(svg: &str, name: &str) -> Vec<(f64, i64)> {
    let frames = svg.split(&format!("@keyframes {name}{{")).nth(1).expect("an animation").split("}}").next();
    let number = |text: &str| text.split(['%', '(', ')', 'p']).next().expect("a number").to_owned();
    frames
        .expect("steps")
        .split("%{")
        .collect::<Vec<_>>()
        .windows(2)
        .map(|pair| {
            let at = pair[0].rsplit('}').next().expect("a percentage").parse().expect("a number");
            let pixels = number(pair[1].split("translateY(").nth(1).expect("a move"));
            (at, pixels.parse().expect("pixels"))
        })
        .collect()
}

#[test]
fn lines_colours_and_overwritten_text_are_drawn_as_a_terminal_shows_them() {
    let python = need!(oracle::program("python3"));
    let scratch = Scratch::new();
    let svg = drawn(
        &python,
        &scratch,
        &[
            (0.0, "\u{1b}[1mbold\u{1b}[0m <plain> & more\r\n"),
            (0.1, "\u{1b}[36mcy"),
            (0.2, "an\u{1b}[39m\r\n"),
            (0.3, "10 %\r"),
            (3.0, "20 %\r100 %\u{1b}[K\r\n"),
            (3.1, "this line is longer than the terminal\r\n"),
        ],
    );
    assert!(svg.contains("<title>a &amp; b</title>"), "{svg}");
    let shown = lines(&svg);
    let texts: Vec<&str> = shown.iter().map(|(_, text)| *text).collect();
    assert_eq!(texts[0], "<tspan class=\"b\">bold</tspan> &lt;plain&gt; &amp; more");
    assert_eq!(texts[1], "<tspan class=\"c6\">cyan</tspan>");
    // What was overwritten is seen until it was, and what overwrote it after.
    assert_eq!(texts[2..4], ["10 %", "100 %"]);
    assert_eq!(shown[2].0, shown[3].0, "both stand on one row");
    assert_eq!(texts[4..], ["this line is longer", "than the terminal"], "wrapped where the terminal ends");
    let rows: Vec<u32> = shown.iter().map(|(y, _)| *y).collect();
    assert!(rows.is_sorted(), "{rows:?}");
}

#[test]
fn lines_appear_in_order_and_the_screen_scrolls_when_it_is_full() {
    let python = need!(oracle::program("python3"));
    let scratch = Scratch::new();
    let texts: Vec<String> = (1..=7).map(|n| format!("line {n}\r\n")).collect();
    let events: Vec<(f64, &str)> =
        texts.iter().zip(0_u32..).map(|(t, n)| (f64::from(n) * 10.0, &**t)).collect();
    let svg = drawn(&python, &scratch, &events);
    let (cover, scroll) = (steps(&svg, "v"), steps(&svg, "s"));
    assert_eq!(cover.len(), 7, "one step for each line: {cover:?}");
    assert!(cover.windows(2).all(|w| w[0].0 < w[1].0 && w[0].1 < w[1].1), "{cover:?}");
    let height = cover[0].1;
    // Four rows fit, so that the column moves up with each of the last three.
    let moved: Vec<i64> = scroll.iter().map(|(_, pixels)| -pixels / height).collect();
    assert_eq!(moved, [0, 1, 2, 3]);
    assert!(svg.contains("a real run of 60 s"), "the caption has the real time: {svg}");
}

#[test]
fn a_recording_is_of_what_a_command_printed() {
    let python = need!(oracle::program("python3"));
    let scratch = Scratch::new();
    let cast = scratch.join("made.cast");
    let record = |after: &str, script: &str| {
        let mut command = Command::new(&python);
        command.arg(root().join("tools/record.py")).arg("record").arg(&cast);
        run(command.args(["--after", after, "--", "sh", "-c", script]))
    };
    record(
        "begin",
        "echo building; echo begin; printf '\\033[1mdone\\033[0m\\n'; test -t 1 && echo terminal",
    )
    .ok();
    let made = fs::read_to_string(&cast).expect("recorded");
    for text in ["begin", "done", "terminal"] {
        assert!(made.contains(text), "{made}");
    }
    assert!(!made.contains("building"), "what came before is left out: {made}");
    // A command that fails leaves the recording as it was.
    let ran = record("begin", "echo begin; echo other; exit 3");
    assert_eq!(ran.code, Some(3), "{ran}");
    assert_eq!(fs::read_to_string(&cast).expect("there"), made);
}

#[test]
fn the_recording_in_readme_is_drawn_from_its_cast_and_short() {
    let python = need!(oracle::program("python3"));
    let scratch = Scratch::new();
    let (cast, svg) = (root().join("docs/demo.cast"), root().join("docs/demo.svg"));
    let drawn = render(&python, &cast, &scratch.join("demo.svg"));
    let kept = fs::read_to_string(&svg).expect("docs/demo.svg");
    assert!(drawn == kept, "docs/demo.svg is not drawn from docs/demo.cast: ./x demo --record");
    assert!(fs::metadata(&svg).expect("there").len() <= MAX_BYTES);
    let seconds = kept.split("animation:s ").nth(1).and_then(|s| s.split('s').next()).expect("a length");
    let seconds: f64 = seconds.parse().expect("seconds");
    assert!(seconds <= MAX_SECONDS, "it plays {seconds} s");
    // GitHub runs no script and loads nothing from elsewhere.
    for bad in ["<script", "url(", "href", "@import", "@font-face"] {
        assert!(!kept.contains(bad), "{bad}");
    }
    let readme = fs::read_to_string(root().join("README.md")).expect("README.md");
    assert!(readme.contains("docs/demo.svg"), "README shows it");
}
