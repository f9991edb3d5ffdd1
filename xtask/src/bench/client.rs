//! Just enough HTTP to measure a daemon without the time that a process of the command line takes to start.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use crate::outside::{Outcome, at};

/// One request on a connection of its own; the body of the answer, which must be a good one.
pub(super) fn ask(socket: &Path, method: &str, path: &str, body: &str) -> Outcome<String> {
    let mut stream = UnixStream::connect(socket).map_err(at(socket))?;
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: slipway\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).map_err(at(socket))?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(at(socket))?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    if head.starts_with("HTTP/1.1 2") {
        return Ok(body.to_owned());
    }
    Err(format!("{method} {path}: {} {body}", head.lines().next().unwrap_or("no answer")))
}
