//! Clients of Hyper-V's API that mean no good, over the socket of the installed command: the daemon answers or refuses,
//! stays small, stays alive, and says in its audit log who tried.

#![expect(clippy::print_stdout, reason = "tests talk to the person who runs them")]

use base64::Engine as _;
use harness::Api;
use harness::api::PASSWORD;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

/// How much the daemon may have grown when all is over, in KiB. What it was seen to take: docs/design/safety.md.
const GROWTH: u64 = 64 << 10;

const WMI: &str = "http://schemas.microsoft.com/wbem/wsman/1/wmi/root/virtualization/v2";

/// Resident memory of the daemon in KiB, as the kernel counts it.
fn resident(api: &Api) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", api.daemon.pid())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a size");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// A connection, kept.
struct Wire(BufReader<TcpStream>);

impl Wire {
    fn to(api: &Api) -> Self {
        let stream = TcpStream::connect(api.address("http")).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
        Self(BufReader::new(stream))
    }

    fn send(&mut self, user: &str, password: &str, length: usize, body: &[u8]) {
        let token = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
        let head = format!(
            "POST /wsman HTTP/1.1\r\nHost: x\r\nAuthorization: Basic {token}\r\n\
             Content-Type: application/soap+xml;charset=UTF-8\r\nContent-Length: {length}\r\n\r\n"
        );
        // What is refused early is not read to its end.
        let _ = self.0.get_mut().write_all(&[head.as_bytes(), body].concat());
    }

    /// Status and body of the next answer; none when it hung up.
    fn hear(&mut self) -> Option<(u16, String)> {
        let (mut status, mut length) = (0, 0);
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line).ok()? == 0 {
                return None;
            }
            if line.trim().is_empty() {
                break;
            }
            if let Some(rest) = line.strip_prefix("HTTP/1.1 ") {
                status = rest.get(..3)?.parse().ok()?;
            }
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("Content-Length")
            {
                length = value.trim().parse().ok()?;
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).ok()?;
        Some((status, String::from_utf8_lossy(&body).into_owned()))
    }

    fn ask(&mut self, body: &str) -> (u16, String) {
        self.send("ada", PASSWORD, body.len(), body.as_bytes());
        self.hear().expect("an answer")
    }
}

fn enumeration(action: &str, body: &str) -> String {
    format!(
        r#"<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope" xmlns:a="http://schemas.xmlsoap.org/ws/2004/08/addressing" xmlns:w="http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd" xmlns:n="http://schemas.xmlsoap.org/ws/2004/09/enumeration"><s:Header><a:Action>http://schemas.xmlsoap.org/ws/2004/09/enumeration/{action}</a:Action><w:ResourceURI>{WMI}/Msvm_ComputerSystem</w:ResourceURI></s:Header><s:Body><n:{action}>{body}</n:{action}></s:Body></s:Envelope>"#
    )
}

fn is_well(api: &Api) {
    let (status, reply) = Wire::to(api).ask(&enumeration("Enumerate", ""));
    assert!(status == 200 && reply.contains("EnumerationContext"), "{status}: {reply}");
}

/// What the daemon takes once it has answered as many connections as threads come to be: the measure for what follows.
fn settled(api: &Api) -> u64 {
    std::thread::scope(|scope| {
        for _ in 0..32 {
            scope.spawn(|| is_well(api));
        }
    });
    resident(api)
}

#[track_caller]
fn grew_little(api: &Api, before: u64, what: &str) {
    let after = resident(api);
    println!("{what}: {before} KiB before, {after} KiB after");
    assert!(after < before + GROWTH, "{what}: {before} KiB grew to {after} KiB");
}

#[test]
fn envelopes_that_are_no_envelopes_are_refused_within_little_memory() {
    let api = Api::start("sim");
    let before = settled(&api);
    let laughs: String =
        (1..12).map(|n| format!("<!ENTITY e{n} \"{}\">", format!("&e{};", n - 1).repeat(10))).collect();
    let bomb = format!("<!DOCTYPE s [<!ENTITY e0 \"ha\">{laughs}]><s>&e11;</s>");
    let outside = "<!DOCTYPE s [<!ENTITY e SYSTEM \"file:///etc/passwd\">]><s>&e;</s>".to_owned();
    let deep = "<e>".repeat(300_000);
    let wide = format!("<e{}/>", (0..60_000).map(|n| format!(" a{n}='1'")).collect::<String>());
    let spaces: String = (0..20_000).map(|n| format!("<e xmlns:a{n}='urn:{n}'>")).collect();
    let many = format!("<s>{}</s>", "<e/>".repeat(200_000));
    let cases =
        [bomb, outside, deep, wide, spaces, many, String::new(), "<s>".to_owned(), "\u{0}\u{1}".to_owned()];
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut wire = Wire::to(&api);
                for _ in 0..4 {
                    for case in &cases {
                        let (status, reply) = wire.ask(case);
                        let code = ["<s:Value>w:SchemaValidationError<", "<s:Value>w:EncodingLimit<"];
                        assert!(status == 500 && code.iter().any(|c| reply.contains(c)), "{status}: {reply}");
                        assert!(!reply.contains("root:"), "no file of this host: {reply}");
                    }
                    // A body that is too large is refused before it is read, and the connection with it.
                    let mut large = Wire::to(&api);
                    large.send("ada", PASSWORD, 1 << 30, &[b'x'; 4096]);
                    assert_eq!(large.hear().expect("an answer").0, 413);
                }
            });
        }
    });
    is_well(&api);
    grew_little(&api, before, "288 bad envelopes from 8 connections");
}

#[test]
fn five_hundred_enumerations_wait_in_little_memory() {
    let api = Api::start("sim");
    for n in 0..10 {
        api.machine(&format!("web{n}"));
    }
    let before = settled(&api);
    let opened: Vec<String> = std::thread::scope(|scope| {
        let many = (0..20).map(|_| {
            scope.spawn(|| {
                let mut wire = Wire::to(&api);
                let open = |_| {
                    let (status, reply) = wire.ask(&enumeration("Enumerate", ""));
                    assert_eq!(status, 200, "{reply}");
                    let (_, rest) = reply.split_once("<n:EnumerationContext>").expect("a context");
                    let context = rest.split_once('<').expect("its end").0.to_owned();
                    let body = format!("<n:EnumerationContext>{context}</n:EnumerationContext>");
                    assert_eq!(wire.ask(&enumeration("Pull", &body)).0, 200);
                    context
                };
                (0..25).map(open).collect::<Vec<_>>()
            })
        });
        many.collect::<Vec<_>>().into_iter().flat_map(|one| one.join().expect("no panic")).collect()
    });
    assert_eq!(opened.len(), 500);
    grew_little(&api, before, "500 open enumerations");
    // Each goes on from where it was: one of the host and ten machines are left.
    let body = format!(
        "<n:EnumerationContext>{}</n:EnumerationContext><n:MaxElements>99</n:MaxElements>",
        opened[250]
    );
    let (_, reply) = Wire::to(&api).ask(&enumeration("Pull", &body));
    assert_eq!(reply.matches("<p:Msvm_ComputerSystem ").count(), 10, "{reply}");
}

#[test]
fn half_open_connections_keep_nobody_out() {
    let api = Api::start("sim");
    let before = settled(&api);
    let whole = enumeration("Enumerate", "");
    let mut open = Vec::new();
    for n in 0..400 {
        let mut wire = Wire::to(&api);
        match n % 4 {
            0 => {}
            1 => wire.0.get_mut().write_all(b"POST /wsman HTTP/1.1\r\nHost: x\r\nX-").expect("sent"),
            // The length is never reached.
            2 => wire.send("ada", PASSWORD, whole.len() + 1, whole.as_bytes()),
            _ => wire.send("ada", PASSWORD, 900_000, b"<s:Envelope"),
        }
        open.push(wire);
    }
    is_well(&api);
    grew_little(&api, before, "400 half-open connections");
    drop(open);
    is_well(&api);
}

#[test]
fn who_guesses_passwords_is_written_down() {
    let api = Api::start("sim");
    for (user, guess) in [("ada", "guess"), ("nobody", PASSWORD), ("", ""), ("a\"b\\\n", "x")] {
        let mut wire = Wire::to(&api);
        wire.send(user, guess, 0, b"");
        assert_eq!(wire.hear(), Some((401, String::new())), "no body, no hint");
    }
    for user in ["ada", "nobody"] {
        let told = api.audited("sign-in", user);
        assert!(told.iter().any(|line| line["end"] != "accepted"), "{user}: {told:?}");
        assert!(
            told.iter().all(|line| !line.to_string().contains("guess")),
            "no password is written: {told:?}"
        );
    }
    is_well(&api);
}
